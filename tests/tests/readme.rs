//! What the README shows is what there is: files that other tests run, and the table of keys as the
//! binary prints it. `LOOPWRIGHT_README=rewrite` puts in what belongs there.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use loopwright_tests::kit::{self, Build};

const BEGIN: &str = "<!-- include: ";
const END: &str = "<!-- end -->";

/// What belongs between the marks of `name`.
fn included(name: &str) -> Result<String> {
    if name == "config docs" {
        let mut command = Command::new(kit::binary(Build::Debug)?);
        kit::without_loopwright(&mut command);
        let output = command.args(["config", "docs"]).output()?;
        ensure!(
            output.status.success(),
            "`loopwright config docs` ended with {}",
            output.status
        );
        return Ok(String::from_utf8(output.stdout)?);
    }
    let text = std::fs::read_to_string(kit::root().join(name)).with_context(|| name.to_owned())?;
    let language = if name.ends_with(".py") {
        "python"
    } else {
        "text"
    };
    Ok(format!("```{language}\n{text}```\n"))
}

fn with_included(readme: &str) -> Result<String> {
    let mut whole = String::new();
    let mut rest = readme;
    while let Some(at) = rest.find(BEGIN) {
        let (before, from) = rest.split_at(at);
        let (mark, _) = from
            .split_once('\n')
            .context("a mark is a line of its own")?;
        let name = mark[BEGIN.len()..].trim_end_matches(" -->");
        let (_, after) = from
            .split_once(END)
            .with_context(|| format!("no end of {name}"))?;
        whole.push_str(&format!("{before}{mark}\n{}{END}", included(name)?));
        rest = after;
    }
    Ok(whole + rest)
}

#[test]
fn the_readme_shows_what_there_is() -> Result<()> {
    let path = kit::root().join("README.md");
    let readme = std::fs::read_to_string(&path)?;
    let expected = with_included(&readme)?;
    if std::env::var("LOOPWRIGHT_README").as_deref() == Ok("rewrite") {
        std::fs::write(&path, &expected)?;
    }
    let differs = readme
        .lines()
        .zip(expected.lines())
        .find(|(is, should)| is != should);
    assert_eq!(
        differs, None,
        "LOOPWRIGHT_README=rewrite brings the README up to date"
    );
    assert_eq!(readme.lines().count(), expected.lines().count());
    Ok(())
}
