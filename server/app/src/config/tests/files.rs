//! Which file is read, and what is wrong with one.

use super::*;

fn problem(sources: &Sources) -> String {
    let text = load(sources)
        .unwrap_err()
        .0
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n");
    text.replace(&format!("{}/", sources.cwd.display()), "")
}

#[test]
fn the_file_is_the_named_one_else_the_variables_else_the_folders_else_the_users() {
    let dir = tempfile::tempdir().unwrap();
    let (cwd, home) = (dir.path().join("cwd"), dir.path().join("home"));
    let user = home.join(".config/loopwright");
    for folder in [&cwd, &user] {
        std::fs::create_dir_all(folder).unwrap();
    }
    let write = |path: &Path, steps: u32| {
        std::fs::write(path, format!("[loop]\nmax_steps = {steps}\n")).unwrap();
    };
    let mut sources = sources(&cwd);
    sources.env = map(&[("HOME", home.to_str().unwrap())]);
    let steps = |sources: &Sources| load(sources).unwrap().config.loops.max_steps;
    assert_eq!(steps(&sources), 75);
    write(&user.join("loopwright.toml"), 1);
    assert_eq!(steps(&sources), 1);
    write(&cwd.join("loopwright.toml"), 2);
    assert_eq!(steps(&sources), 2);
    write(&cwd.join("env.toml"), 3);
    sources
        .env
        .insert("LOOPWRIGHT_CONFIG".into(), "env.toml".into());
    assert_eq!(steps(&sources), 3);
    write(&cwd.join("flag.toml"), 4);
    sources.config_path = Some("flag.toml".into());
    assert_eq!(steps(&sources), 4);
    assert_eq!(load(&sources).unwrap().file, Some(cwd.join("flag.toml")));
}

#[test]
fn xdg_moves_the_users_file() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir_all(dir.path().join("xdg/loopwright")).unwrap();
    std::fs::write(
        dir.path().join("xdg/loopwright/loopwright.yaml"),
        "loop: {max_steps: 6}\n",
    )
    .unwrap();
    let mut sources = sources(dir.path());
    sources.env.insert(
        "XDG_CONFIG_HOME".into(),
        dir.path().join("xdg").display().to_string(),
    );
    assert_eq!(load(&sources).unwrap().config.loops.max_steps, 6);
}

#[test]
fn a_file_is_not_looked_for_in_parent_folders() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::create_dir(dir.path().join("below")).unwrap();
    std::fs::write(
        dir.path().join("loopwright.toml"),
        "[loop]\nmax_steps = 3\n",
    )
    .unwrap();
    assert_eq!(
        load(&sources(&dir.path().join("below")))
            .unwrap()
            .config
            .loops
            .max_steps,
        75
    );
}

#[test]
fn a_named_file_must_be_there_and_be_one_that_can_be_read() {
    let dir = tempfile::tempdir().unwrap();
    let mut sources = sources(dir.path());
    sources
        .env
        .insert("LOOPWRIGHT_CONFIG".into(), "env.toml".into());
    assert_eq!(
        problem(&sources),
        "env.toml: there is no such file, and LOOPWRIGHT_CONFIG names it"
    );
    sources
        .env
        .insert("LOOPWRIGHT_CONFIG".into(), String::new());
    assert_eq!(
        problem(&sources),
        "LOOPWRIGHT_CONFIG: LOOPWRIGHT_CONFIG is empty; name a file or leave it out"
    );
    sources.config_path = Some("flag.toml".into());
    assert_eq!(
        problem(&sources),
        "flag.toml: there is no such file, and --config names it"
    );
    let ini = with_file(dir.path(), "c.ini", "");
    assert_eq!(
        problem(&ini),
        "c.ini: the name must end in .toml, .yaml or .yml"
    );
    let long = with_file(dir.path(), "c.toml", &"#".repeat((1 << 20) + 1));
    assert_eq!(
        problem(&long),
        "c.toml: is 1048577 bytes long; at most 1048576 are read"
    );
}

#[test]
fn two_files_in_one_place_are_one_too_many() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(dir.path().join("loopwright.toml"), "").unwrap();
    std::fs::write(dir.path().join("loopwright.yml"), "").unwrap();
    assert_eq!(
        problem(&sources(dir.path())),
        format!(
            "loopwright.toml: {} is there too; remove one, or name one with --config",
            "loopwright.yml"
        )
    );
}

#[test]
fn broken_files_are_named_with_their_line() {
    let dir = tempfile::tempdir().unwrap();
    let toml = |text: &str| problem(&with_file(dir.path(), "c.toml", text));
    let yaml = |text: &str| problem(&with_file(dir.path(), "c.yaml", text));
    assert_eq!(
        toml("[loop]\nmax_steps = 1\nmax_steps = 2\n"),
        "c.toml: line 3, max_steps: not valid TOML: duplicate key `max_steps` in table `loop`"
    );
    assert!(
        toml("[loop]\nmax_steps = \n").starts_with("c.toml: line 2, max_steps: not valid TOML: ")
    );
    assert!(toml("[loop\n").starts_with("c.toml: line 1: not valid TOML: "));
    assert!(
        toml("[loop]\nmax_steps = 1979-05-27\n").ends_with("no key takes a date or a time of day")
    );
    assert!(yaml("loop:\n  max_steps: 1\n  max_steps: 2\n").contains("not valid YAML: "));
    assert!(yaml("loop: [\n").contains("not valid YAML: "));
    assert_eq!(
        yaml("- loop\n"),
        "c.yaml: not a configuration: sections such as `loop:` are expected"
    );
    assert_eq!(
        yaml("loop:\n  max_steps: ~\n"),
        "c.yaml: loop.max_steps = null: expected a whole number in plain digits, 1 to 1000000"
    );
    assert!(load(&with_file(dir.path(), "empty.yaml", "")).is_ok());
    assert!(load(&with_file(dir.path(), "empty.toml", "")).is_ok());
}
