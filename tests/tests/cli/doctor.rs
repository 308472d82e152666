//! `loopwright doctor`, and what a start says of a policy that may lose facts.

use std::{fs, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Result, ensure};
use loopwright_tests::{kit::Options, scene::loopwright};

fn doctor(dir: &Path, args: &[&str]) -> Result<(Option<i32>, String)> {
    let mut all = vec!["doctor"];
    all.extend(args);
    let output = loopwright(dir, &all)?.output()?;
    Ok((output.status.code(), String::from_utf8(output.stdout)?))
}

#[test]
fn each_look_is_one_line_and_what_failed_ends_with_one() -> Result<()> {
    let temp = tempfile::tempdir()?;
    let dir = temp.path();
    let file = "[models.m]\nprovider = \"openai\"\nid = \"x\"\napi_key_env = \"THE_KEY\"\n";
    fs::write(dir.join("loopwright.toml"), file)?;
    let (code, page) = doctor(dir, &[])?;
    ensure!(code == Some(1), "{page}");
    let missing = |line: &str| line.starts_with("FAILED ") && line.contains("THE_KEY is not set");
    ensure!(page.lines().any(missing), "{page}");

    let scripted =
        "[models.m]\nprovider = \"scripted\"\nscript = \"m.yaml\"\n[loop]\nmodel = \"m\"\n";
    fs::write(dir.join("loopwright.toml"), scripted)?;
    fs::write(dir.join("m.yaml"), "turns: []\n")?;
    let (code, page) = doctor(dir, &[])?;
    ensure!(code == Some(0), "{page}");
    for line in [
        "ok     configuration: good",
        "ok     model: m needs no key",
        "ok     session_log.sync: always",
        "ok     session_log.dir: ",
        "nothing FAILED",
    ] {
        ensure!(
            page.lines().any(|one| one.starts_with(line)),
            "no {line:?}: {page}"
        );
    }
    ensure!(!dir.join("loopwright").exists(), "nothing is made");

    let open = dir.join("open");
    fs::create_dir(&open)?;
    fs::set_permissions(&open, fs::Permissions::from_mode(0o755))?;
    let shown = open.display().to_string();
    let (code, page) = doctor(dir, &["--dir", &shown, "--set", "session_log.sync=none"])?;
    ensure!(code == Some(0), "warnings fail nothing: {page}");
    for words in [
        format!("`chmod 700 {shown}`"),
        "at most once may run again".to_owned(),
    ] {
        let warned = |line: &str| line.starts_with("warn ") && line.contains(&words);
        ensure!(page.lines().any(warned), "no {words:?}: {page}");
    }
    Ok(())
}

#[test]
fn a_start_warns_of_facts_that_are_acknowledged_before_they_are_durable() -> Result<()> {
    let warning = "facts are acknowledged before they are durable";
    for (sync, warns) in [("always", false), ("none", true), ("50ms", true)] {
        let server = Options::default().set("session_log.sync", sync).start()?;
        let said = server.stderr();
        let warned = |line: &str| line.contains("WARN") && line.contains(warning);
        ensure!(said.lines().any(warned) == warns, "{sync}: {said}");
    }
    Ok(())
}
