//! `loopwright run --local`: a server inside this process, for one loop.

use std::{process::ExitCode, sync::Arc};

use loopwright_client::{
    Client, ClientOptions,
    cli::{RunCommand, Terminal, run as run_loop},
};

use super::Where;
use crate::{app::App, telemetry::Telemetry};

pub(super) async fn run(command: RunCommand, mut place: Where) -> anyhow::Result<ExitCode> {
    place
        .flags
        .insert("server.listen".to_owned(), "127.0.0.1:0".to_owned());
    let (loaded, env) = place.load()?;
    let app = Box::pin(App::start(Arc::new(loaded.config), &env, Telemetry::off())).await?;
    let client = Client::connect(ClientOptions {
        token: command.connect.token.clone(),
        ..ClientOptions::at(format!("http://{}", app.addr()))
    })?;
    let mut terminal = Terminal::stdio();
    let exit = Box::pin(run_loop(&command, &client, &mut terminal)).await;
    Box::pin(app.shutdown()).await?;
    Ok(exit.into())
}
