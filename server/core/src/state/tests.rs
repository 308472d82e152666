use super::*;

#[test]
fn answers_are_kept_up_to_the_limit_and_the_oldest_goes_first() {
    let mut answers = Answers::default();
    for n in 0..=ANSWERS_KEPT as u64 {
        answers.remember(
            &format!("r{n}"),
            Answer {
                seq: n,
                loop_id: LoopId(1),
            },
        );
    }
    assert_eq!(answers.by_request.len(), ANSWERS_KEPT);
    assert!(!answers.by_request.contains_key("r0"));
    assert!(answers.by_request.contains_key("r1"));
}
