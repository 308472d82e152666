//! `loopwright config`: a file to begin with, a check, what holds and why, and the table of all keys.

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use loopwright_tests::scene::loopwright;

type Env<'a> = &'a [(&'a str, &'a str)];

fn run(dir: &Path, args: &[&str], env: Env) -> Result<(Option<i32>, String, String)> {
    let mut command = loopwright(dir, args)?;
    let output = command.envs(env.iter().copied()).output()?;
    let text = |bytes: Vec<u8>| String::from_utf8(bytes);
    Ok((
        output.status.code(),
        text(output.stdout)?,
        text(output.stderr)?,
    ))
}

#[test]
fn a_first_file_is_good_and_is_never_overwritten() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let (code, out, err) = run(dir, &["config", "init"], &[])?;
    assert_eq!(code, Some(0), "{err}");
    ensure!(out.contains("loopwright.toml"), "{out}");
    let (code, out, err) = run(dir, &["config", "check"], &[])?;
    assert_eq!(code, Some(0), "{err}");
    ensure!(out.contains("loopwright.toml"), "the file was read: {out}");
    fs::write(dir.join("loopwright.toml"), "# mine\n")?;
    let (code, _, err) = run(dir, &["config", "init"], &[])?;
    assert_eq!(code, Some(1));
    ensure!(err.contains("loopwright.toml"), "{err}");
    assert_eq!(fs::read_to_string(dir.join("loopwright.toml"))?, "# mine\n");
    Ok(())
}

#[test]
fn what_holds_is_shown_with_where_it_came_from_and_no_secret() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let file = "[loop]\nmax_steps = 7\n[models.m]\nprovider = \"openai\"\nid = \"x\"\n\
                base_url = \"http://127.0.0.1:1/v1\"\napi_key_env = \"THE_KEY\"\n\
                [models.m.headers]\nx-secret = \"hush-hush\"\n";
    fs::write(dir.join("loopwright.toml"), file)?;
    let env = [
        ("LOOPWRIGHT_LOOP__MAX_OUTPUT_TOKENS", "123"),
        ("THE_KEY", "sk-hush-hush"),
    ];
    let set = "tools.timeout=9s";
    let (code, out, err) = run(dir, &["config", "show", "--set", set], &env)?;
    assert_eq!(code, Some(0), "{err}");
    for (value, from) in [
        ("7", "loopwright.toml:2"),
        ("123", "LOOPWRIGHT_LOOP__MAX_OUTPUT_TOKENS"),
        ("9s", "command line"),
    ] {
        let line = out.lines().find(|line| line.contains(from));
        ensure!(
            line.is_some_and(|line| line.contains(value)),
            "{value} {from}: {out}"
        );
    }
    ensure!(!out.contains("hush-hush"), "a secret was shown: {out}");
    Ok(())
}

#[test]
fn a_wrong_key_is_refused_with_the_nearest_one() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path();
    let rows: [(&[&str], Env); 2] = [
        (&["config", "check", "--set", "loop.max_step=3"], &[]),
        (&["config", "check"], &[("LOOPWRIGHT_LOOP__MAX_STEP", "3")]),
    ];
    for (args, env) in rows {
        let (code, _, err) = run(dir, args, env)?;
        assert_eq!(code, Some(1), "{err}");
        ensure!(
            err.contains("max_steps") || err.contains("MAX_STEPS"),
            "{err}"
        );
    }
    let (code, _, err) = run(dir, &["config", "check", "--config", "gone.toml"], &[])?;
    assert_eq!(code, Some(1));
    ensure!(err.contains("gone.toml"), "{err}");
    Ok(())
}

#[test]
fn the_table_has_every_key_that_is_shown() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (code, table, err) = run(dir.path(), &["config", "docs"], &[])?;
    assert_eq!(code, Some(0), "{err}");
    let (_, shown, _) = run(dir.path(), &["config", "show"], &[])?;
    let keys = shown
        .lines()
        .filter_map(|line| line.split_whitespace().next());
    let keys: Vec<&str> = keys.filter(|key| key.contains('.')).collect();
    ensure!(keys.len() > 30, "{shown}");
    for key in keys {
        ensure!(
            table.contains(&format!("`{key}`")),
            "{key} is not in the table"
        );
    }
    Ok(())
}
