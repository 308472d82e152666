mod answers;
mod control;
mod logs;
mod top;

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use clap::Parser;
use loopwright_proto::v1::{
    EndReason, Entry, Message, Role, WatchLoopResponse, watch_loop_response::Item,
};
use tokio::sync::mpsc;
use tonic::{Code, Status};

use super::fake::{Cut, Fake, status};
use super::session::{ended, endless, entry, sample, say};
use crate::Client;
use crate::cli::{ClientCommand, Exit, FoldMessages, Interrupts, NoFold, Terminal, execute, run};
use crate::render::tests::GOLDEN;

#[derive(Parser)]
struct Program {
    #[command(subcommand)]
    command: ClientCommand,
}

/// A stream whose text can be read while it is written.
#[derive(Clone, Default)]
struct Paper(Arc<Mutex<Vec<u8>>>);

/// A closed pipe.
struct Closed;

impl Paper {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Paper {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Write for Closed {
    fn write(&mut self, _: &[u8]) -> io::Result<usize> {
        Err(io::ErrorKind::BrokenPipe.into())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Desk {
    out: Paper,
    err: Paper,
    press: mpsc::Sender<()>,
    terminal: Terminal,
}

fn desk() -> Desk {
    let (out, err) = (Paper::default(), Paper::default());
    let (press, presses) = mpsc::channel(4);
    let terminal = Terminal::plain(out.clone(), err.clone(), Interrupts::Channel(presses));
    Desk {
        out,
        err,
        press,
        terminal,
    }
}

fn parsed(client: &Client, line: &[&str]) -> ClientCommand {
    let server = ["--server", client.options().url.as_str()];
    let words = ["loopwright"].iter().chain(line).chain(&server).copied();
    Program::try_parse_from(words).unwrap().command
}

/// Runs a command with the quick client of the fake, not with one that waits as long as the real.
async fn ran(client: &Client, line: &[&str], desk: &mut Desk) -> Exit {
    match parsed(client, line) {
        ClientCommand::Run(command) => run(&command, client, &mut desk.terminal).await,
        command => execute(command, &mut desk.terminal, &NoFold).await,
    }
}

#[tokio::test]
async fn run_shows_text_on_stdout_and_everything_else_on_stderr() {
    let (fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();

    let exit = ran(&client, &["run", "What is 2 + 3?"], &mut desk).await;

    assert_eq!(exit, Exit::Completed);
    assert_eq!(
        desk.out.text(),
        "Let me lo\nGood morning\nHello wörld\nIt is 5.\n"
    );
    let notes: Vec<String> = desk.err.text().lines().map(str::to_owned).collect();
    let golden = GOLDEN.lines();
    let lines: Vec<&str> = golden
        .filter(|line| line.starts_with(['✗', '·', '→', '✓', 'c']))
        .collect();
    assert_eq!(notes, lines);
    assert_eq!(fake.state().cursors, [0]);
}

#[tokio::test]
async fn run_shows_the_same_however_often_the_connection_breaks() {
    for at in 0..sample().len() {
        let (fake, client) = Fake::serve(sample()).await;
        let cut = Cut::Status(at, Status::unavailable("cut"));
        fake.state().cuts.extend([cut.clone(), cut]);
        let mut desk = desk();

        let exit = ran(&client, &["run", "Hi"], &mut desk).await;

        assert_eq!(exit, Exit::Completed);
        let text = desk.out.text().replace('\n', "");
        assert_eq!(
            text, "Let me loGood morningHello wörldIt is 5.",
            "cut after {at}"
        );
        assert!(desk.err.text().contains("connection lost"));
    }
}

#[tokio::test]
async fn every_end_of_a_loop_is_the_exit_code_of_run() {
    for reason in 1..13 {
        let reason = EndReason::try_from(reason).unwrap();
        let (_fake, client) = Fake::serve(vec![entry(1, vec![ended(reason)])]).await;
        let exit = ran(&client, &["run", "Hi"], &mut desk()).await;
        assert_eq!(exit, Exit::of_reason(reason), "{reason:?}");
    }
}

#[tokio::test]
async fn json_is_one_item_a_line_and_nothing_else() {
    let (_fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();

    ran(&client, &["run", "Hi", "--json"], &mut desk).await;

    let lines = desk.out.text();
    let items: Vec<WatchLoopResponse> = lines
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let seqs: Vec<u64> = items
        .iter()
        .filter_map(|item| match &item.item {
            Some(Item::Entry(entry)) => Some(entry.seq),
            _ => None,
        })
        .collect();
    assert_eq!(seqs, (1..=9).collect::<Vec<_>>());
    assert_eq!(items.len(), sample().len());
    assert_eq!(desk.err.text(), "");
}

#[tokio::test]
async fn ctrl_c_cancels_and_waits_for_the_end() {
    let (fake, client) = Fake::serve(endless()).await;
    let mut desk = desk();
    desk.press.send(()).await.unwrap();

    let exit = ran(&client, &["run", "Count"], &mut desk).await;

    assert_eq!(exit, Exit::Cancelled);
    assert!(
        desk.err.text().contains("cancelled ·"),
        "{}",
        desk.err.text()
    );
    let kinds: Vec<&str> = fake.state().commands.iter().map(|c| c.0).collect();
    assert_eq!(kinds, ["start", "cancel"]);
}

#[tokio::test]
async fn a_second_ctrl_c_leaves_and_says_how_to_come_back() {
    let (fake, client) = Fake::serve(endless()).await;
    // The start is accepted; the cancel is not, so that the loop goes on.
    let mut desk = desk();
    let press = desk.press.clone();
    let commands = {
        let fake = fake.clone();
        async move {
            let refusal = status(Code::FailedPrecondition, "NO_LOOP");
            while fake.state().commands.is_empty() {
                tokio::task::yield_now().await;
            }
            fake.state().refusals.push_back(refusal);
            press.send(()).await.unwrap();
            while fake.state().commands.len() < 2 {
                tokio::task::yield_now().await;
            }
            press.send(()).await.unwrap();
        }
    };

    let (exit, ()) = tokio::join!(ran(&client, &["run", "Count"], &mut desk), commands);

    assert_eq!(exit, Exit::Cancelled);
    let notes = desk.err.text();
    assert!(notes.contains("loopwright watch s1 --after "), "{notes}");
    assert!(notes.contains("the loop goes on"), "{notes}");
}

#[tokio::test]
async fn what_cannot_be_meant_is_a_usage_error() {
    let (fake, client) = Fake::serve(sample()).await;
    let mut empty = desk();
    assert_eq!(ran(&client, &["run", "  "], &mut empty).await, Exit::Usage);
    assert!(empty.err.text().contains("the message is empty"));

    let refusal = status(Code::InvalidArgument, "INVALID_FIELDS");
    fake.state().refusals.push_back(refusal);
    let mut refused = desk();
    assert_eq!(
        ran(&client, &["run", "Hi"], &mut refused).await,
        Exit::Usage
    );
    assert!(refused.err.text().contains("agent.limits.max_steps"));

    assert_eq!(
        ran(
            &client,
            &["log", "show", "s1", "--messages", "--at", "0"],
            &mut desk()
        )
        .await,
        Exit::Usage
    );
}

#[tokio::test]
async fn a_message_can_come_from_standard_input() {
    let (_fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();
    desk.terminal = desk.terminal.with_input("  \n".as_bytes());
    assert_eq!(ran(&client, &["run", "-"], &mut desk).await, Exit::Usage);

    desk.terminal = desk.terminal.with_input("What is\n2 + 3?\n".as_bytes());
    assert_eq!(
        ran(&client, &["run", "-"], &mut desk).await,
        Exit::Completed
    );
}

#[tokio::test]
async fn a_closed_pipe_ends_quietly() {
    let (_fake, client) = Fake::serve(sample()).await;
    let (_press, presses) = mpsc::channel(1);
    let err = Paper::default();
    let mut terminal = Terminal::plain(Closed, err.clone(), Interrupts::Channel(presses));

    let show = parsed(&client, &["log", "show", "s1"]);
    let exit = execute(show, &mut terminal, &NoFold).await;

    assert_eq!((exit, err.text().as_str()), (Exit::Completed, ""));
}

#[tokio::test]
async fn flags_say_nothing_of_the_agent_unless_they_are_given() {
    let (_fake, client) = Fake::serve(vec![]).await;
    let request = |line: &[&str]| match parsed(&client, line) {
        ClientCommand::Run(run) => run.request(),
        other => panic!("{other:?}"),
    };

    assert_eq!(request(&["run", "Hi", "--session", "s1"]).agent, None);
    let none = request(&["run", "Hi", "--no-tools"]).agent.unwrap();
    assert_eq!(none.tools.unwrap().tools, Vec::<String>::new());
    assert_eq!(none.limits, None);
    let some = request(&["run", "Hi", "--tools", "a__b,c__d", "--max-tokens", "10"]);
    let agent = some.agent.unwrap();
    assert_eq!(agent.tools.unwrap().tools, ["a__b", "c__d"]);
    let budget = agent.limits.unwrap().budget.unwrap();
    assert_eq!(budget.max_total_tokens, Some(10));
    let some = request(&["run", "Hi", "--max-cost", "0.25", "--max-tokens", "50k"]);
    let budget = some.agent.unwrap().limits.unwrap().budget.unwrap();
    assert_eq!(budget.max_cost_micro_usd, Some(250_000));
    assert_eq!(budget.max_total_tokens, Some(50_000));
    for wrong in [
        ["--max-tokens", "1e4"],
        ["--max-tokens", "50K"],
        ["--max-cost", "0.0000001"],
        ["--max-cost", "-1"],
        ["--max-cost", "25c"],
    ] {
        let line = ["loopwright", "run", "Hi"].into_iter().chain(wrong);
        assert!(Program::try_parse_from(line).is_err(), "{wrong:?}");
    }
}

#[tokio::test]
async fn sessions_are_listed_over_pages() {
    let (_fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();

    let exit = ran(&client, &["sessions", "list"], &mut desk).await;

    assert_eq!(exit, Exit::Completed);
    let table = desk.out.text();
    let lines: Vec<&str> = table.lines().collect();
    assert_eq!(
        lines,
        [
            "SESSION  STATE      LOOPS  STEPS  TOKENS  COST     SEQ  AGE  TITLE",
            "s1       max steps  1      2      1,290   $0.0123  9         What is 2 + 3?",
            "s2       max steps  1      2      1,290   $0.0123  9         What is 2 + 3?",
        ]
    );
    assert_eq!(
        desk.err.text(),
        "2 sessions · 2,580 tokens · $0.0246\n",
        "what they cost together"
    );
}

#[tokio::test]
async fn messages_are_folded_by_the_hook_up_to_a_seq() {
    struct Count;
    impl FoldMessages for Count {
        fn fold(&self, entries: &[Entry]) -> Result<Vec<Message>, String> {
            Ok(vec![Message {
                role: Role::User.into(),
                parts: vec![say(&format!("{} entries", entries.len()))],
            }])
        }
    }
    let (_fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();
    let show = |line: &[&str]| parsed(&client, line);

    let all = show(&["log", "show", "s1", "--messages"]);
    execute(all, &mut desk.terminal, &Count).await;
    let at = show(&["log", "show", "s1", "--messages", "--at", "4"]);
    execute(at, &mut desk.terminal, &Count).await;
    let past = show(&["log", "show", "s1", "--messages", "--at", "10"]);
    let exit = execute(past, &mut desk.terminal, &Count).await;

    assert_eq!(desk.out.text(), "user:\n  9 entries\nuser:\n  4 entries\n");
    assert_eq!(exit, Exit::Usage);
    assert!(desk.err.text().contains("the log ends at seq 9"));
}

#[tokio::test]
async fn watch_goes_on_until_it_is_left() {
    let (fake, client) = Fake::serve(sample()).await;
    let mut desk = desk();
    let press = desk.press.clone();
    let err = desk.err.clone();
    let leave = async {
        while !err.text().contains("completed ·") {
            tokio::task::yield_now().await;
        }
        press.send(()).await.unwrap();
    };

    let line = ["watch", "s1", "--after", "6"];
    let (exit, ()) = tokio::join!(ran(&client, &line, &mut desk), leave);

    assert_eq!(exit, Exit::Cancelled);
    assert_eq!(desk.out.text(), "Hello wörld\nIt is 5.\n");
    assert_eq!(fake.state().cursors, [6]);
}
