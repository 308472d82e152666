use super::*;
use crate::tests::overview::{end, one, part};
use loopwright_proto::v1::{LoopState, watch_loops_response::Item};

#[tokio::test]
async fn once_is_a_table_and_nothing_else() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    fake.state()
        .overviews
        .push_back(vec![part(&["s1", "s2"]), end(2)]);
    let mut desk = desk();
    let exit = ran(&client, &["top", "--once"], &mut desk).await;
    assert_eq!(exit, Exit::Completed);
    let lines: Vec<String> = desk.out.text().lines().map(str::to_owned).collect();
    assert_eq!(
        lines[0],
        "SESSION  LOOP  STATE    STEP  TOKENS  COST  AGE  DOING"
    );
    assert_eq!(
        lines[1..],
        [
            "s1       l1    running  0     0",
            "s2       l1    running  0     0"
        ]
    );

    fake.state().overviews.push_back(vec![end(0)]);
    let mut desk = self::desk();
    ran(&client, &["top", "--once"], &mut desk).await;
    assert_eq!(desk.out.text(), "");
    assert!(desk.err.text().contains("--all"), "{}", desk.err.text());
}

#[tokio::test]
async fn without_a_terminal_each_change_is_a_line() {
    let (fake, client) = Fake::serve(Vec::new()).await;
    let ended = || Item::Changed(one("s1", LoopState::Ended));
    let told = vec![
        part(&["s1"]),
        end(1),
        ended(),
        ended(),
        Item::DeletedSessionId("s1".to_owned()),
        Item::DeletedSessionId("unheard-of".to_owned()),
    ];
    fake.state().overviews.push_back(told);
    // The next connection is refused for good.
    let mut desk = desk();
    let command = ["top"];
    let refuse = fake.clone();
    let refused = tokio::spawn(async move {
        // The first stream has begun.
        while refuse.state().commands.is_empty() {
            tokio::task::yield_now().await;
        }
        let status = Status::invalid_argument("enough");
        refuse.state().refusals.push_back(status);
    });
    let exit = ran(&client, &command, &mut desk).await;
    refused.await.unwrap();
    assert_eq!(exit, Exit::Usage);
    assert_eq!(
        desk.out.text(),
        "s1/l1  running  step 0, 0 tokens\ns1/l1  unspecified  step 0, 0 tokens\ns1  deleted\n"
    );
    assert!(
        desk.err.text().contains("trying again"),
        "{}",
        desk.err.text()
    );
}
