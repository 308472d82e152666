#![expect(clippy::unwrap_used, reason = "tests")]

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use loopwright_log::{JsonlLog, JsonlOptions};

use super::*;
use crate::config::{ModelConfig, Provider, SessionLogConfig, units::Period};

async fn looked(dir: &Path) -> Vec<Finding> {
    let config = SessionLogConfig {
        dir: dir.to_owned(),
        ..SessionLogConfig::default()
    };
    let looked = tokio::task::spawn_blocking(move || folder::look(&config));
    looked.await.unwrap()
}

fn graded(findings: &[Finding], grade: Grade) -> Vec<&str> {
    let graded = findings.iter().filter(|one| one.grade == grade);
    graded.map(|one| one.text.as_str()).collect()
}

#[test]
fn a_policy_that_loses_says_so_and_names_the_one_that_does_not() {
    let always = durability(SyncMode::Always);
    assert_eq!(always.grade, Grade::Fine);
    let interval = SyncMode::Interval(Period::parse("50ms").unwrap());
    for (sync, takes) in [
        (interval, "about 50ms"),
        (SyncMode::None, "had not written yet"),
    ] {
        let Finding { grade, text, .. } = durability(sync);
        assert_eq!(grade, Grade::Warning);
        for words in [takes, "at most once may run again", "= \"always\""] {
            assert!(text.contains(words), "no {words:?} in {text}");
        }
    }
}

#[test]
fn a_key_is_said_to_be_there_and_never_shown() {
    let model = ModelConfig {
        provider: Some(Provider::OpenAi),
        id: Some("x".to_owned()),
        api_key_env: Some("MY_KEY".to_owned()),
        ..ModelConfig::default()
    };
    let mut config = Config::default();
    config.models.insert("mine".to_owned(), model);
    let env = BTreeMap::from([("MY_KEY".to_owned(), "sk-hush".to_owned())]);
    let (page, failed) = page(&keys(&config, &env));
    assert_eq!(failed, 0);
    assert!(page.contains("mine has its key, from MY_KEY"), "{page}");
    assert!(!page.contains("hush"), "{page}");
    let (page, _) = super::page(&keys(&config, &BTreeMap::new()));
    assert!(
        !page.contains("mine"),
        "only with the configuration: {page}"
    );
}

#[tokio::test]
async fn a_folder_is_told_for_what_it_is() {
    let temp = tempfile::tempdir().unwrap();
    let dir = temp.path().join("log");
    let found = looked(&dir).await;
    assert!(found[0].text.contains("not there yet"), "{found:?}");
    assert_eq!(graded(&found, Grade::Failed), Vec::<&str>::new());
    fs::create_dir(&dir).unwrap();
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).unwrap();
    let found = looked(&dir).await;
    let way_out = format!("`chmod 700 {}`", dir.display());
    assert!(found[0].text.contains(&way_out), "{found:?}");
    assert_eq!(found[0].grade, Grade::Warning);
    assert_eq!(fs::read_dir(&dir).unwrap().count(), 0, "nothing is made");
    fs::set_permissions(&dir, fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(looked(&dir).await[0].grade, Grade::Fine);
    let file = temp.path().join("file");
    fs::write(&file, "").unwrap();
    assert_eq!(looked(&file).await[0].grade, Grade::Failed);
}

#[tokio::test]
async fn who_serves_the_folder_is_named() {
    let temp = tempfile::tempdir().unwrap();
    let (log, _) = JsonlLog::open(JsonlOptions::new(temp.path())).unwrap();
    let served = format!("process {} serves it now", std::process::id());
    let says = |found: &[Finding]| found.iter().any(|one| one.text.contains(&served));
    assert!(says(&looked(temp.path()).await));
    drop(log);
    let found = looked(temp.path()).await;
    assert!(!says(&found), "{found:?}");
    let last = found.last().unwrap();
    assert!(last.text.contains("sessions: 0"), "{last:?}");
}
