//! What WuKongIM's clients and back ends meet: their TCP port, encryption, and the two doors that WuKongIM leaves open.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use super::{Config, ConfigError};

/// WuKongIM's protocols.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wukong {
    /// WKProto over TCP; `None`, in text the empty one: off.
    #[serde(with = "address_or_off")]
    pub tcp_listen: Option<SocketAddr>,
    /// Whether WKProto sessions agree on keys and encrypt payloads.
    pub encryption: bool,
    /// Whether CONNECT must prove who it is.
    pub token_auth: bool,
    /// Whether WuKongIM's HTTP routes take requests without a key.
    pub api_open: bool,
    /// Whether sends with an API key are checked like a client's.
    pub api_send_checks: bool,
    /// Whether anybody may write to a user; else only contacts may.
    pub whitelist_off_of_person: bool,
    /// Whether every error of WuKongIM's HTTP routes has the status 400.
    pub api_errors_400: bool,
    /// Whether messages of the built-in system user name no sender.
    pub blank_system_uid: bool,
}

/// Where clients are told to connect; empty: where the listeners are.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct External {
    /// WKProto over TCP, `host:port`.
    pub tcp_addr: String,
    /// WebSocket, `ws://host:port/path`.
    pub ws_addr: String,
    /// WebSocket behind TLS, `wss://host:port/path`.
    pub wss_addr: String,
}

impl Default for Wukong {
    fn default() -> Self {
        Self {
            tcp_listen: Some(SocketAddr::from(([127, 0, 0, 1], 5100))),
            encryption: true,
            token_auth: true,
            api_open: false,
            api_send_checks: false,
            whitelist_off_of_person: true,
            api_errors_400: false,
            blank_system_uid: false,
        }
    }
}

impl Wukong {
    /// One sentence for each door that stands open, for the log of every start.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let open = [
            (!self.token_auth, "wukong.token_auth = false: whoever reaches the sockets may connect as any user"),
            (
                self.api_open,
                "wukong.api_open = true: whoever reaches the HTTP API may do anything through WuKongIM's routes",
            ),
        ];
        open.into_iter().filter_map(|(is_open, text)| is_open.then_some(text)).collect()
    }

    /// What hangs together with the rest of the settings. That the open doors are refused where others can reach them needs no
    /// rule of its own: no listener beyond loopback starts without `insecure`, this one included.
    pub(super) fn check(&self, config: &Config) -> Result<(), ConfigError> {
        let reachable = |address: &SocketAddr| !address.ip().is_loopback() && !config.insecure;
        let refuse = |text: String| Err(ConfigError::new(text));
        if let Some(address) = self.tcp_listen.filter(reachable) {
            return refuse(format!(
                "wukong.tcp_listen is {address}, which others can reach, and this server does not speak TLS: listen on \
                 127.0.0.1 behind a proxy that ends TLS, or accept that credentials cross the network readable with \
                 --insecure (insecure = true)"
            ));
        }
        let taken = [("listen.socket", config.listen.socket), ("listen.http", config.listen.http)];
        if let Some(address) = self.tcp_listen.filter(|address| address.port() != 0)
            && let Some((key, _)) = taken.into_iter().find(|(_, other)| *other == address)
        {
            return refuse(format!("wukong.tcp_listen and {key} are both {address}: they need two ports"));
        }
        Ok(())
    }
}

/// An address as text, none as the empty text.
mod address_or_off {
    use std::net::SocketAddr;

    use serde::{Deserialize, Deserializer, Serializer};

    pub fn serialize<S: Serializer>(address: &Option<SocketAddr>, serializer: S) -> Result<S::Ok, S::Error> {
        match address {
            Some(address) => serializer.collect_str(address),
            None => serializer.serialize_str(""),
        }
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(change: impl FnOnce(&mut Config)) -> Option<String> {
        let mut config = Config::default();
        change(&mut config);
        config.check().err().map(|error| error.to_string())
    }

    fn out() -> SocketAddr {
        SocketAddr::from(([0, 0, 0, 0], 5100))
    }

    #[test]
    fn open_doors_need_loopback_or_insecure() {
        assert_eq!(refused(|c| (c.wukong.token_auth, c.wukong.api_open) = (false, true)), None);
        assert_eq!(refused(|c| c.wukong.tcp_listen = None), None);
        for (change, words) in [
            (
                (|c: &mut Config| c.wukong.tcp_listen = Some(out())) as fn(&mut Config),
                ["wukong.tcp_listen is 0.0.0.0:5100", "TLS"],
            ),
            (|c| c.wukong.tcp_listen = Some(c.listen.socket), ["wukong.tcp_listen and listen.socket", "two ports"]),
        ] {
            let text = refused(change).expect("refused");
            assert!(words.iter().all(|word| text.contains(word)), "{text}");
        }
        let everything = |c: &mut Config| {
            c.insecure = true;
            c.listen.http = SocketAddr::from(([0, 0, 0, 0], 5001));
            c.wukong = Wukong { tcp_listen: Some(out()), token_auth: false, api_open: true, ..Wukong::default() };
        };
        assert_eq!(refused(everything), None);
        for address in ["listen.http is", "listen.socket is", "wukong.tcp_listen is"] {
            let text = refused(|c| {
                (c.wukong.token_auth, c.wukong.api_open) = (false, true);
                match address {
                    "listen.http is" => c.listen.http = out(),
                    "listen.socket is" => c.listen.socket = out(),
                    _ => c.wukong.tcp_listen = Some(out()),
                }
            });
            assert!(text.expect("refused").contains(address));
        }
        assert_eq!(Wukong::default().warnings().len(), 0);
        let open = Wukong { token_auth: false, api_open: true, ..Wukong::default() };
        assert_eq!(open.warnings().len(), 2);
    }
}
