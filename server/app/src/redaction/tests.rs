#![expect(clippy::unwrap_used, reason = "tests")]

use std::time::{Duration, Instant};

use loopwright_core::input::{Command, Mode, SendMessage};
use proptest::prelude::*;

use super::*;
use crate::config::SecretKind;

/// A secret of each kind, put together so that no scanner takes this file for a leak.
fn sample(kind: SecretKind) -> String {
    let some = |n: usize| "a1B2c3D4e5".repeat(20)[..n].to_owned();
    match kind {
        SecretKind::PrivateKey => pem("RSA ", 3),
        SecretKind::AwsAccessKey => format!("AKIA{}", "Q7WX".repeat(4)),
        SecretKind::GithubToken => format!("ghp_{}", some(36)),
        SecretKind::AnthropicKey => format!("sk-ant-api03-{}-{}", some(40), some(8)),
        SecretKind::OpenaiKey => format!("sk-proj-{}", some(48)),
        SecretKind::SlackToken => format!("xoxb-{}-{}", "1".repeat(12), some(24)),
        SecretKind::GoogleApiKey => format!("AIza{}", some(35)),
        SecretKind::Jwt => format!("eyJ{}.eyJ{}.{}", some(20), some(40), some(43)),
        SecretKind::BearerToken => format!("Bearer {}", some(32)),
        SecretKind::CreditCard => "4111 1111 1111 1111".to_owned(),
        SecretKind::Email => "ann.o'x+tag@mail.example.org".to_owned(),
    }
}

fn pem(kind: &str, lines: usize) -> String {
    let line = "MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSjAgEAAoIBAQDx+/0aB1cC2dD3\n";
    let body = line.repeat(lines);
    format!("-----BEGIN {kind}PRIVATE KEY-----\n{body}-----END {kind}PRIVATE KEY-----")
}

fn only(kind: SecretKind) -> Redaction {
    Redaction::new(&RedactionConfig {
        secrets: vec![kind],
    })
}

/// What stays of a secret that is long enough to be told by.
fn leaks(redacted: &str, secret: &str) -> bool {
    let tail: String = secret
        .chars()
        .rev()
        .take(8)
        .collect::<Vec<_>>()
        .iter()
        .rev()
        .collect();
    redacted.contains(&tail)
}

#[test]
fn each_kind_is_found_by_its_own_name_in_any_surroundings() {
    for kind in SecretKind::ALL {
        let secret = sample(kind);
        let marker = format!("[redacted:{}]", kind.as_str());
        for (before, after) in [
            ("", ""),
            ("see ", " there"),
            ("é=\"", "\" 🪁"),
            ("(", ")."),
            ("\n", "\nnext"),
            ("KEY=", "; x"),
        ] {
            let text = format!("{before}{secret}{after}");
            let redacted = only(kind).text(&text).into_owned();
            assert!(redacted.contains(&marker), "{kind:?}: {text} -> {redacted}");
            assert!(!leaks(&redacted, &secret), "{kind:?}: {redacted}");
            assert!(
                redacted.starts_with(before) && redacted.ends_with(after),
                "{redacted}"
            );
            let everything = Redaction::everything().text(&text).into_owned();
            assert!(!leaks(&everything, &secret), "{kind:?}: {everything}");
        }
    }
}

#[test]
fn what_only_looks_alike_stays() {
    for (kind, text) in [
        (
            SecretKind::OpenaiKey,
            "task-management-system-overview-of-everything",
        ),
        (SecretKind::OpenaiKey, "sk-short"),
        (SecretKind::AnthropicKey, "sk-antelope"),
        (SecretKind::AwsAccessKey, "AKIAthe name of a prefix"),
        (
            SecretKind::AwsAccessKey,
            "the aws_secret_access_key is a field",
        ),
        (SecretKind::GithubToken, "ghp_ is how they begin"),
        (
            SecretKind::BearerToken,
            "the bearer internationalization-of-things",
        ),
        (SecretKind::Jwt, "eyJhbGciOiJIUzI1NiJ9 alone is a header"),
        (
            SecretKind::CreditCard,
            "4111 1111 1111 1112 has a wrong check digit",
        ),
        (
            SecretKind::CreditCard,
            "1795358187873 is a time, 9999999999999995 nobody's",
        ),
        (SecretKind::CreditCard, "id 00041111111111111111 is longer"),
        (SecretKind::Email, "a@b, @home and x@localhost"),
        (
            SecretKind::PrivateKey,
            "-----BEGIN CERTIFICATE-----\nMIIE\n-----END CERTIFICATE-----",
        ),
    ] {
        assert_eq!(only(kind).text(text), text, "{kind:?}");
    }
}

#[test]
fn the_forms_that_a_kind_has_are_all_known() {
    let some = "a1B2c3D4e5".repeat(8);
    for (kind, secret) in [
        (
            SecretKind::GithubToken,
            format!("github_pat_{}_{}", &some[..22], &some[..59]),
        ),
        (SecretKind::OpenaiKey, format!("sk-{}", &some[..48])),
        (SecretKind::SlackToken, format!("xapp-1-A0{}", &some[..40])),
        (
            SecretKind::SlackToken,
            format!(
                "https://hooks.slack.com/services/T0{}/B0{}/{}",
                &some[..8],
                &some[..8],
                &some[..24]
            ),
        ),
        (
            SecretKind::AwsAccessKey,
            format!("aws_secret_access_key = {}", &some[..40]),
        ),
        (
            SecretKind::AwsAccessKey,
            format!("\"SecretAccessKey\": \"{}\"", &some[..40]),
        ),
        (
            SecretKind::Jwt,
            format!(
                "eyJ{}..{}.{}.{}",
                &some[..20],
                &some[..16],
                &some[..30],
                &some[..22]
            ),
        ),
        (
            SecretKind::BearerToken,
            format!("Authorization: bearer {}==", &some[..40]),
        ),
        (SecretKind::CreditCard, "3782-822463-10005".to_owned()),
        (
            SecretKind::CreditCard,
            "5555555555554444 12/27 123".to_owned(),
        ),
        (SecretKind::CreditCard, "6011.1111.1111.1117".to_owned()),
        (SecretKind::Email, "jörg@bücher.example".to_owned()),
        (SecretKind::PrivateKey, pem("OPENSSH ", 2)),
        (SecretKind::PrivateKey, pem("", 30).replace('\n', "\\n")),
        (SecretKind::PrivateKey, pem("EC ", 3).replace('\n', "\r\n")),
    ] {
        let redacted = only(kind).text(&secret).into_owned();
        let marker = format!("[redacted:{}]", kind.as_str());
        assert!(
            redacted.contains(&marker),
            "{kind:?}: {secret} -> {redacted}"
        );
    }
}

#[test]
fn a_key_that_was_cut_off_goes_as_far_as_it_goes_and_no_further() {
    let whole = pem("", 4);
    for cut in [60, 120, 200, 250] {
        let text = format!("{}\nand then I said", &whole[..cut]);
        let redacted = only(SecretKind::PrivateKey).text(&text).into_owned();
        assert!(!redacted.contains("MIIE"), "cut at {cut}: {redacted}");
        assert!(redacted.starts_with("[redacted:private_key]"), "{redacted}");
    }
    let prose = "a file that begins with -----BEGIN PRIVATE KEY----- is secret, so keep it";
    assert_eq!(
        only(SecretKind::PrivateKey).text(prose),
        "a file that begins with [redacted:private_key] is secret, so keep it"
    );
    let encrypted = pem("RSA ", 2).replacen(
        "-----\n",
        "-----\nProc-Type: 4,ENCRYPTED\nDEK-Info: AES-128-CBC,00FF\n\n",
        1,
    );
    let cut = encrypted.replace("-----END RSA PRIVATE KEY-----", "");
    assert!(!only(SecretKind::PrivateKey).text(&cut).contains("MIIE"));
}

#[test]
fn secrets_that_overlap_leave_nothing_of_either() {
    let jwt = sample(SecretKind::Jwt);
    let text = format!("Authorization: Bearer {jwt} and {}", pem("", 2));
    let redacted = Redaction::everything().text(&text).into_owned();
    assert_eq!(
        redacted,
        "Authorization: Bearer [redacted:jwt] and [redacted:private_key]"
    );
    let inside = format!(
        "{}{}",
        pem("", 1).replace("MIIE", "a@b.cd "),
        sample(SecretKind::Email)
    );
    let redacted = Redaction::everything().text(&inside).into_owned();
    assert!(
        !redacted.contains("MIIE") && !redacted.contains("example.org"),
        "{redacted}"
    );
}

#[test]
fn a_secret_that_is_split_over_parts_is_replaced_in_each() {
    let secret = sample(SecretKind::GithubToken);
    for cut in 1..secret.len() {
        let (head, tail) = secret.split_at(cut);
        let mut pieces = vec![
            format!("take {head}"),
            String::new(),
            format!("{tail} and go"),
        ];
        Redaction::everything().pieces(&mut pieces);
        let all = pieces.concat();
        assert!(
            !leaks(&all, &secret) && !all.contains("ghp_"),
            "cut at {cut}: {pieces:?}"
        );
        assert!(
            pieces[0].starts_with("take ") && pieces[2].ends_with(" and go"),
            "{pieces:?}"
        );
    }
    // What the next part begins with must not hide what the one before ends with.
    let card = sample(SecretKind::CreditCard);
    let mut pieces = vec![card.clone(), "7 items".to_owned()];
    Redaction::everything().pieces(&mut pieces);
    assert_eq!(pieces, ["[redacted:credit_card]", "7 items"]);
}

#[test]
fn json_stays_json_and_what_is_not_changed_stays_byte_for_byte() {
    let token = sample(SecretKind::GithubToken);
    let escaped = token.replacen("ghp_", "\\u0067hp\\u005f", 1);
    let all = Redaction::everything();
    for (json, expected) in [
        (
            r#"{"n":1e400, "s" :"x"}"#.to_owned(),
            r#"{"n":1e400, "s" :"x"}"#,
        ),
        (
            format!(r#"{{"k":"{token}","n":1.0}}"#),
            r#"{"k":"[redacted:github_token]","n":1.0}"#,
        ),
        (
            format!(r#"["{escaped}"]"#),
            r#"["[redacted:github_token]"]"#,
        ),
        (
            r#"{"card":4111111111111111}"#.to_owned(),
            r#"{"card":"[redacted:credit_card]"}"#,
        ),
        (r#"{"a@b.cd":-1}"#.to_owned(), r#"{"[redacted:email]":-1}"#),
        (
            format!(
                r#"{{"aws_secret_access_key":"{}"}}"#,
                &"a1B2c3D4e5".repeat(4)
            ),
            r#"{"aws_secret_access_key":"[redacted:aws_access_key]"}"#,
        ),
        (r#""\"a@b.cd\"""#.to_owned(), r#""\"[redacted:email]\"""#),
    ] {
        assert_eq!(all.json(&json), expected, "{json}");
    }
    let lines: Vec<String> = pem("", 3)
        .lines()
        .map(|line| format!("\"{line}\""))
        .collect();
    let spread = format!("{{\"key\":[{}]}}", lines.join(","));
    let redacted = all.json(&spread).into_owned();
    assert!(!redacted.contains("MIIE"), "{redacted}");
    assert!(
        serde_json::from_str::<serde_json::Value>(&redacted).is_ok(),
        "{redacted}"
    );
    assert_eq!(all.json("not json: a@b.cd"), "not json: [redacted:email]");
}

#[test]
fn only_what_has_a_secret_is_made_anew() {
    let parts: Parts = Arc::new(vec![Part::Text("plain".into())]);
    assert!(Arc::ptr_eq(
        &Redaction::everything().parts(Arc::clone(&parts)),
        &parts
    ));
    let off = Redaction::default();
    let secret: Parts = Arc::new(vec![Part::Text(sample(SecretKind::Email))]);
    assert!(Arc::ptr_eq(&off.parts(Arc::clone(&secret)), &secret));
    assert!(matches!(off.text("a@b.cd"), Cow::Borrowed("a@b.cd")));
    let told = Redaction::everything().command(What::SendMessage(SendMessage {
        by: Command::default(),
        parts: secret,
        mode: Mode::Steer,
        guard: None,
        agent: None,
        limits: None,
        traceparent: None,
    }));
    let What::SendMessage(told) = told else {
        panic!()
    };
    assert_eq!(*told.parts, [Part::Text("ann.o'[redacted:email]".into())]);
}

/// Texts that make a careless search go back over them again and again.
#[test]
fn the_worst_of_texts_take_time_by_their_length() {
    const SIZE: usize = 64 << 10;
    let fill = |unit: &str| unit.repeat(SIZE / unit.len());
    let all = Redaction::everything();
    for unit in [
        "a",
        "é",
        "1",
        "1 ",
        "4111 ",
        "-",
        "@",
        "a@",
        "a.",
        "eyJ",
        "eyJaaaaaaaa.",
        "eyJaaaaaaaa.a ",
        "sk-",
        "sk-proj-",
        "Bearer ",
        "bearer a1 ",
        "AKIA",
        "ghp_",
        "xoxb-",
        "AIza",
        "\\n",
        "\"",
        "\\",
        "-----BEGIN PRIVATE KEY-----",
        "-----END PRIVATE KEY-----",
        "-----BEGIN ",
        "\n",
        "-----BEGIN PRIVATE KEY-----\naaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\n",
        "a@b.cd ",
        "[\"a@b.cd\",",
        "aws_secret_access_key=",
        "{\"a\":",
        "4111111111111111 ",
    ] {
        let text = fill(unit);
        let began = Instant::now();
        let redacted = all.text(&text).into_owned();
        drop(all.json(&text));
        all.pieces(&mut [text.clone(), text.clone()]);
        let took = began.elapsed();
        // Debug builds are slow, and machines busy: a quadratic search would take hours.
        assert!(took < Duration::from_secs(60), "{unit:?}: {took:?}");
        assert!(redacted.len() <= text.len() * 8, "{unit:?} grew");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// Whatever stands round them, no secret is left, and a second pass finds nothing to do.
    #[test]
    fn nothing_is_left_and_a_second_pass_changes_nothing(
        pieces in proptest::collection::vec(
            prop_oneof![
                (0..SecretKind::ALL.len()).prop_map(|at| sample(SecretKind::ALL[at])),
                "[ -~]{0,12}",
                "\\PC{0,8}",
                Just("\n".to_owned()),
                Just(" ".to_owned()),
                Just("-----BEGIN PRIVATE KEY-----".to_owned()),
            ],
            0..12,
        ),
    ) {
        let all = Redaction::everything();
        let text = pieces.concat();
        let once = all.text(&text).into_owned();
        prop_assert_eq!(all.text(&once).into_owned(), once.clone());
        prop_assert!(!once.contains("MIIEvQIBADANBgkqhkiG9w0BAQEFAASCBKcwggSj"), "{}", once);
        let json = serde_json::to_string(&pieces).unwrap();
        let redacted = all.json(&json).into_owned();
        prop_assert!(serde_json::from_str::<serde_json::Value>(&redacted).is_ok(), "{}", redacted);
        let mut split = pieces.clone();
        all.pieces(&mut split);
        prop_assert_eq!(split.len(), pieces.len());
        for (piece, was) in split.iter().zip(&pieces) {
            prop_assert_eq!(piece.is_empty(), was.is_empty());
        }
    }
}
