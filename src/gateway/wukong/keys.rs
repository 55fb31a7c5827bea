//! The server's half of a session's keys (wukongim-wire.md 4.1): a key pair that the connections of some seconds share.
//!
//! Owns when the pair is made anew. Every session still has a key of its own: clients bring a new key pair to each connection,
//! and each gets a salt of its own, which is the IV. A pair for every connection would hide no more from somebody who listens,
//! and costs a fifth of a connect.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use protocol::wukong::{SALT_BYTES, ServerSecret, salt_of};

/// How long connections get the same pair: what a private key in memory can open later is no more than these seconds'.
const PAIR_AGE_MAX: Duration = Duration::from_secs(10);

/// A key pair and how CONNACK names it.
#[derive(Debug)]
pub struct KeyPair {
    /// Its private half.
    pub secret: ServerSecret,
    /// Its public half in base64.
    pub public: String,
    made: Instant,
}

/// A shard's key pair.
#[derive(Debug, Default)]
pub struct KeyRing(RefCell<Option<Rc<KeyPair>>>);

impl KeyRing {
    /// The pair for a connection of now.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn pair(&self, now: Instant) -> Result<Rc<KeyPair>, getrandom::Error> {
        let mut kept = self.0.borrow_mut();
        if let Some(pair) = &*kept
            && now.saturating_duration_since(pair.made) < PAIR_AGE_MAX
        {
            return Ok(Rc::clone(pair));
        }
        let mut random = [0; 32];
        getrandom::fill(&mut random)?;
        let secret = ServerSecret::from_random(random);
        let pair = Rc::new(KeyPair { public: secret.public_key(), secret, made: now });
        *kept = Some(Rc::clone(&pair));
        Ok(pair)
    }
}

/// A salt for one session.
///
/// # Errors
/// The system has no randomness.
pub fn salt() -> Result<String, getrandom::Error> {
    let mut random = [0; SALT_BYTES];
    getrandom::fill(&mut random)?;
    Ok(salt_of(random))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_serves_ten_seconds_and_every_session_has_its_own_salt() {
        let (ring, start) = (KeyRing::default(), Instant::now());
        let first = ring.pair(start).expect("randomness");
        let at = |seconds: u64| {
            ring.pair(start + Duration::from_millis(seconds * 1_000 - 1)).expect("randomness").public.clone()
        };
        assert_eq!(at(10), first.public);
        let second = ring.pair(start + PAIR_AGE_MAX).expect("randomness");
        assert_ne!(second.public, first.public);
        assert_eq!(at(20), second.public);
        assert_ne!(salt().expect("randomness"), salt().expect("randomness"));
    }
}
