//! The command line, and `call` against a served sidecar.

#![expect(clippy::unwrap_used, reason = "tests")]

use clap::Parser;
use loopwright_tools::Serving;

use super::*;

#[derive(Debug, Parser)]
struct Line {
    #[command(subcommand)]
    command: SidecarCommand,
}

fn parsed(line: &str) -> Result<SidecarCommand, String> {
    let words = std::iter::once("sidecar").chain(line.split(' '));
    Line::try_parse_from(words)
        .map(|line| line.command)
        .map_err(|error| error.to_string())
}

async fn served() -> Serving {
    calc("calc")
        .without_server()
        .notices(|_| ())
        .spawn()
        .await
        .unwrap()
}

/// Calls a tool; the exit code in words, what went to the output, and what went beside it.
async fn called(url: &str, tool: &str, arguments: &str) -> (String, String, String) {
    let args = CallArgs {
        url: url.into(),
        tool: tool.into(),
        arguments: arguments.into(),
    };
    let (mut out, mut aside) = (Vec::new(), Vec::new());
    let code = match call(&args, &mut out, &mut aside).await {
        Ok(code) if code == ExitCode::SUCCESS => "0".to_owned(),
        Ok(_) => "1".to_owned(),
        Err(error) => error.to_string(),
    };
    (
        code,
        String::from_utf8(out).unwrap(),
        String::from_utf8(aside).unwrap(),
    )
}

#[test]
fn the_commands_are_read_as_documented() {
    let line =
        "files --root /srv --listen unix:/run/f.sock --server http://10.0.0.1:7070 --name docs";
    let SidecarCommand::Files(args) = parsed(line).unwrap() else {
        panic!()
    };
    assert_eq!(args.root, PathBuf::from("/srv"));
    assert_eq!(args.serve.listen, Some(Listen::Unix("/run/f.sock".into())));
    assert_eq!(args.serve.name.as_deref(), Some("docs"));
    let SidecarCommand::Calc(args) = parsed("calc --listen 127.0.0.1:7071").unwrap() else {
        panic!()
    };
    assert!(args.server.is_none() && !args.no_register);
    let SidecarCommand::Call(args) = parsed("call unix:/s.sock evaluate").unwrap() else {
        panic!()
    };
    assert_eq!(
        (args.tool.as_str(), args.arguments.as_str()),
        ("evaluate", "{}")
    );
}

#[test]
fn wrong_lines_are_refused_in_words() {
    for (line, expected) in [
        ("files", "--root"),
        ("files --root . --append-delay-ms 10001", "10001"),
        ("calc --listen 7071", "IP:PORT"),
        (
            "calc --no-register --server http://x",
            "cannot be used with",
        ),
        ("call", "<URL>"),
    ] {
        let error = parsed(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[tokio::test]
async fn a_call_prints_the_answer_and_exits_by_it() {
    let serving = served().await;
    let url = serving.endpoint();
    let (code, out, _) = called(url, "evaluate", r#"{"expression": "6*7"}"#).await;
    assert_eq!((code.as_str(), out.as_str()), ("0", "6*7 = 42\n"));
    let (code, out, aside) = called(url, "evaluate", r#"{"expression": "6*"}"#).await;
    assert_eq!(code, "1");
    assert!(
        out.contains("ends there") && aside.contains("failed"),
        "{out} {aside}"
    );
    let (code, out, aside) = called(url, "evaluate", "{}").await;
    assert_eq!((code.as_str(), out.as_str()), ("1", ""));
    assert!(
        aside.contains("not executed: ") && aside.contains("`expression` is missing"),
        "{aside}"
    );
    let (code, _, aside) = called(url, "evalaute", "{}").await;
    assert_eq!(code, "1");
    assert!(aside.contains("this sidecar has: evaluate"), "{aside}");
}

#[tokio::test]
async fn a_call_that_cannot_be_made_says_what_to_do() {
    let (error, ..) = called("unix:/nowhere/at/all.sock", "evaluate", "{}").await;
    assert!(
        error.contains("no sidecar answers at unix:/nowhere/at/all.sock"),
        "{error}"
    );
    assert!(error.contains("is it running"), "{error}");
    for url in ["127.0.0.1:7071", "https://127.0.0.1:1", "http://"] {
        let (error, ..) = called(url, "evaluate", "{}").await;
        assert!(error.contains("cannot be used"), "{url}: {error}");
    }
    let (error, ..) = called("http://127.0.0.1:1", "evaluate", "{expression: 1}").await;
    assert!(
        error.contains("JSON: ") && error.contains("write an object"),
        "{error}"
    );
}

#[tokio::test]
async fn a_root_or_token_that_cannot_be_read_is_named() {
    let serve = ServeArgs {
        token_file: Some("/nowhere/token".into()),
        ..ServeArgs::default()
    };
    let args = FilesArgs {
        root: "/nowhere/root".into(),
        append_delay_ms: 0,
        serve: serve.clone(),
    };
    let error = run(SidecarCommand::Files(args))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("--root /nowhere/root"), "{error}");
    let error = run(SidecarCommand::Calc(serve))
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("--token-file /nowhere/token"), "{error}");
}
