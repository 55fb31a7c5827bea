//! The `chinwag` binary.

fn main() -> anyhow::Result<()> {
    tracing_subscriber::fmt().init();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().max_blocking_threads(8).build()?;
    runtime.block_on(async {
        let app = chinwag::app::App::start(chinwag::config::Config::default()).await?;
        tokio::signal::ctrl_c().await?;
        println!("{}", app.drain().await);
        Ok(())
    })
}
