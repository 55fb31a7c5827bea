//! Keys, defaults, example file and refusals.

use super::*;

fn sources(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("chinwag.toml");
    std::fs::write(&path, file).expect("written");
    let env = env.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
    let flags = flags.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned(), format!("--set {n}={v}"))).collect();
    (dir, Sources { file: Some(path), env, flags })
}

fn refused(file: &str, env: &[(&str, &str)], flags: &[(&str, &str)], words: &[&str]) {
    let (_dir, sources) = sources(file, env, flags);
    let error = load(&sources).expect_err("must be refused").to_string();
    for word in words {
        assert!(error.contains(word), "{error:?} does not say {word:?}");
    }
    assert!(!error.contains('\n'), "{error:?} is more than one line");
}

#[test]
fn the_table_and_the_tree_have_the_same_keys() {
    let mut of_tree: Vec<String> = flatten(&to_dict(&Config::default())).into_keys().collect();
    let mut of_table: Vec<String> = KEYS.iter().map(|k| k.name.to_owned()).collect();
    of_tree.sort();
    of_table.sort();
    assert_eq!(of_tree, of_table);
}

#[test]
fn environment_names_are_unique() {
    let names: std::collections::BTreeSet<String> = KEYS.iter().map(Key::env_name).collect();
    assert_eq!(names.len(), KEYS.len());
    assert!(!names.contains(ENV_CONFIG_FILE));
}

#[test]
fn the_defaults_pass_their_own_checks() {
    Config::default().check().expect("defaults hang together");
    let values = flatten(&to_dict(&Config::default()));
    for key in KEYS.iter().filter(|k| k.kind != Kind::Secret) {
        check_value(key, &values[key.name], "default").expect("a default within its range");
    }
}

#[test]
fn the_example_file_is_the_defaults() {
    let text = include_str!("../../config.example.toml");
    assert!(text == Config::example(), "run `chinwag config example > config.example.toml`");
    let (_dir, sources) = sources(text, &[], &[]);
    let loaded = load(&sources).expect("the example file is valid");
    assert_eq!(loaded.config, Config::default());
}

#[test]
fn proxies_are_addresses_and_blocks_and_need_be_somebody() {
    refused("[listen]\ntrusted_proxies = \"10.0.0.1, nginx\"\n", &[], &[], &["listen.trusted_proxies", "nginx"]);
    refused(
        "",
        &[("CHINWAG_LISTEN_PROXY_PROTOCOL", "true")],
        &[],
        &["listen.proxy_protocol", "listen.trusted_proxies"],
    );
    let (_dir, sources) = sources("[listen]\ntrusted_proxies = \"10.0.0.0/8,::1\"\nproxy_protocol = true\n", &[], &[]);
    let proxies = load(&sources).expect("is valid").config.listen.proxies().expect("a list");
    assert!(proxies.trusts("::1".parse().expect("an address")));
}

#[test]
fn flags_win_over_environment_over_file() {
    let (_dir, sources) = sources(
        "shards = 2\n[limits]\nin_flight_max = 10\n[limits.group]\nmembers_max = 3\n",
        &[("CHINWAG_SHARDS", "3"), ("CHINWAG_LIMITS_IN_FLIGHT_MAX", "1_000"), ("PATH", "/bin")],
        &[("shards", "4"), ("conversation.on", "off")],
    );
    let loaded = load(&sources).expect("valid");
    assert_eq!(loaded.config.shards, 4);
    assert_eq!(loaded.config.limits.in_flight_max, 1_000);
    assert_eq!(loaded.config.limits.group.members_max, 3);
    assert!(!loaded.config.conversation.on);
    assert_eq!(loaded.config.limits.group.payload_bytes_max, Config::default().limits.group.payload_bytes_max);
    assert_eq!(loaded.origins["shards"], "flag --set shards=4");
    assert_eq!(loaded.origins["limits.in_flight_max"], "environment CHINWAG_LIMITS_IN_FLIGHT_MAX");
    assert!(loaded.origins["limits.group.members_max"].starts_with("file "));
    assert_eq!(loaded.origins["http.body_bytes_max"], "default");
}

#[test]
fn what_nobody_knows_stops_the_start() {
    refused("colour = 1\n", &[], &[], &["unknown key colour", "chinwag.toml"]);
    refused("[limits]\nbacklog = 1\n", &[], &[], &["unknown key limits.backlog", "listen.backlog?"]);
    refused("[limits.grupp]\nmembers_max = 1\n", &[], &[], &["limits.grupp.members_max", "limits.group.members_max?"]);
    refused("", &[("CHINWAG_COLOUR", "1")], &[], &["unknown environment variable CHINWAG_COLOUR"]);
    refused("", &[], &[("colour", "1")], &["unknown key colour", "--set colour=1"]);
    refused("shards = [1\n", &[], &[], &["chinwag.toml", "is not TOML"]);
}

#[test]
fn bad_values_name_key_value_and_range() {
    refused("shards = 5000\n", &[], &[], &["shards is 5000", "0 to 1024", "file"]);
    refused("shards = -1\n", &[], &[], &["shards is -1", "0 to 1024"]);
    refused("shards = \"two\"\n", &[], &[], &["shards is \"two\"", "0 to 1024"]);
    refused("listen = 5\n", &[], &[], &["unknown key listen"]);
    refused("shards = { a = 1 }\n", &[], &[], &["shards.a"]);
    refused("insecure = 1\n", &[], &[], &["insecure is 1", "true or false"]);
    refused("[log]\nformat = \"xml\"\n", &[], &[], &["log.format is \"xml\"", "text or json"]);
    refused("[log]\nlevel = \"info=loud=x\"\n", &[], &[], &["log.level"]);
    refused("", &[("CHINWAG_LISTEN_HTTP", "localhost")], &[], &["listen.http is \"localhost\"", "address:port"]);
    refused("[wukong]\ntcp_listen = \"5100\"\n", &[], &[], &["wukong.tcp_listen is \"5100\"", "empty: off"]);
    refused("", &[("CHINWAG_SHARDS", "many")], &[], &["shards is \"many\"", "environment CHINWAG_SHARDS"]);
    refused("", &[("CHINWAG_AUTH_ROOT_KEY", "short")], &[], &["auth.root_key is too short", "24 characters"]);
}

#[test]
fn the_root_key_is_taken_from_the_environment_only_and_never_shown() {
    let secret = "cw_root_0123456789abcdef0123456789abcdef";
    refused(&format!("[auth]\nroot_key = \"{secret}\"\n"), &[], &[], &["CHINWAG_AUTH_ROOT_KEY"]);
    refused("", &[], &[("auth.root_key", secret)], &["CHINWAG_AUTH_ROOT_KEY"]);
    let (_dir, sources) = sources("", &[("CHINWAG_AUTH_ROOT_KEY", &format!("{secret}\n"))], &[]);
    let loaded = load(&sources).expect("valid");
    assert_eq!(loaded.config.auth.root_key, secret);
    let shown = loaded.show();
    assert!(shown.iter().any(|s| s.key == "auth.root_key" && s.value == "(set)"));
    assert!(!format!("{:?} {shown:?}", loaded.config).contains(secret));
}

#[test]
fn an_address_may_be_off() {
    let (_dir, sources) = sources("", &[("CHINWAG_WUKONG_TCP_LISTEN", "")], &[]);
    let loaded = load(&sources).expect("valid");
    assert_eq!(loaded.config.wukong.tcp_listen, None);
    assert!(loaded.show().iter().any(|shown| shown.key == "wukong.tcp_listen" && shown.value == "\"\""));
}

#[test]
fn what_contradicts_is_refused_with_both_names() {
    refused("", &[("CHINWAG_LISTEN_HTTP", "0.0.0.0:5001")], &[], &["listen.http is 0.0.0.0:5001", "--insecure", "TLS"]);
    refused("[listen]\nsocket = \"[::]:5200\"\n", &[], &[], &["listen.socket is [::]:5200", "--insecure"]);
    refused("[listen]\nsocket = \"127.0.0.1:5001\"\n", &[], &[], &["listen.socket and listen.http"]);
    refused("[limits]\nframe_bytes_max = 65536\n", &[], &[], &["limits.frame_bytes_max", "limits.payload_bytes_max"]);
    refused("[session]\nheartbeat_ms = 180000\n", &[], &[], &["session.heartbeat_ms", "session.idle_timeout_ms"]);
    refused("[conversation]\nmsg_count_max = 5\n", &[], &[], &["msg_count_default", "msg_count_max"]);
    let (_dir, sources) = sources("insecure = true\n[listen]\nsocket = \"0.0.0.0:5200\"\n", &[], &[]);
    load(&sources).expect("insecure allows it");
}

#[test]
fn a_named_file_must_exist_and_the_default_one_need_not() {
    let missing = Sources { file: Some("/nonexistent/x.toml".into()), ..Sources::default() };
    assert!(load(&missing).expect_err("must be refused").to_string().contains("/nonexistent/x.toml"));
    let named = Sources { env: vec![(ENV_CONFIG_FILE.into(), "/nonexistent/y.toml".into())], ..Sources::default() };
    assert!(load(&named).expect_err("must be refused").to_string().contains("/nonexistent/y.toml"));
}
