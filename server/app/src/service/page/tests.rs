use loopwright_proto::v1::ListSessionsRequest;

use super::*;

fn page(size: usize, token: &str, filters: &ListSessionsRequest) -> Result<Page, Violations> {
    let mut all = Violations::default();
    let page = Page::parse(size, token, filters, &mut all);
    all.check(page)
}

#[test]
fn pages_follow_each_other_without_gap_or_repeat() {
    let places: Vec<Place> = (0..10)
        .map(|n| Place::new(n / 3, format!("s{n}")))
        .collect();
    let mut sorted = places.clone();
    sorted.sort();
    for size in [1, 3, 4, 10, 11] {
        let (mut seen, mut token) = (Vec::new(), String::new());
        for _ in 0..=10 {
            let page = page(size, &token, &ListSessionsRequest::default());
            let (items, next) = page
                .ok()
                .map(|page| page.cut(places.clone()))
                .unwrap_or_default();
            assert!(items.len() <= size);
            seen.extend(items);
            token = next;
            if token.is_empty() {
                break;
            }
        }
        assert_eq!(seen, sorted, "in pages of {size}");
    }
    assert_eq!(
        (sorted[0].at.0, sorted[0].name.as_str()),
        (3, "s9"),
        "the latest first"
    );
}

#[test]
fn a_token_of_another_list_is_refused() {
    let filters = ListSessionsRequest::default();
    let first =
        page(1, "", &filters).map(|page| page.cut(vec![Place::new(1, "a"), Place::new(2, "b")]));
    let token = first.map(|(_, token)| token).unwrap_or_default();
    assert!(page(1, &token, &filters).is_ok());
    let other = ListSessionsRequest {
        agent: "x".into(),
        ..filters.clone()
    };
    for (token, filters) in [
        (token.as_str(), &other),
        ("garbage!", &filters),
        ("AAAA", &filters),
    ] {
        let refused = page(1, token, filters).err().map(|all| all.0[0].clone());
        let refused = refused.map(|one| (one.field, one.problem.contains("leave it empty")));
        assert_eq!(refused, Some(("page_token".to_owned(), true)), "{token}");
    }
}
