//! Proves: two servers never share a data directory or a port, and the second says what is the matter in words an operator
//! can act on.

use chinwag::app::App;

use crate::harness::{Server, config, start_again};

async fn refused(config: chinwag::config::Config) -> String {
    let error = App::start(config).await.expect_err("must not start");
    format!("{error:#}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_server_on_a_data_directory_refuses() {
    let first = Server::on_disk().await;
    let said = refused(first.config.clone()).await;
    let dir = first.config.data_dir.display().to_string();
    assert!(said.contains("data_dir") && said.contains(&dir) && said.contains("in use"), "{said}");
    // The first one did not notice, and its end frees the directory.
    let mut a = first.connect("a").await;
    a.say("b", 1, b"x").await;
    let Server { app, dir: _dir, config } = first;
    drop(a);
    app.drain().await;
    start_again(&config).await.drain().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_port_in_use_is_named_whoever_uses_it() {
    // Another Chinwag with a directory of its own: sockets, then HTTP.
    let first = Server::on_disk().await;
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut second = config(&dir);
    second.listen.socket = first.app.socket_addr();
    let said = refused(second.clone()).await;
    assert!(said.contains("listen.socket") && said.contains(&first.app.socket_addr().to_string()), "{said}");
    assert!(said.contains("in use"), "{said}");
    let mut second = config(&dir);
    second.listen.http = first.app.http_addr();
    let said = refused(second).await;
    assert!(said.contains("listen.http") && said.contains(&first.app.http_addr().to_string()), "{said}");
    assert!(said.contains("in use"), "{said}");
    let mut second = config(&dir);
    second.wukong.tcp_listen = first.app.wukong_addr();
    let said = refused(second).await;
    assert!(said.contains("wukong.tcp_listen") && said.contains("in use"), "{said}");
    // Any other process.
    let other = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let mut second = config(&dir);
    second.listen.socket = other.local_addr().expect("address");
    assert!(refused(second).await.contains("in use"));
    // What did not start left nothing behind: the directory can be used.
    App::start(config(&dir)).await.expect("starts").drain().await;
}
