//! Every bar of the loop has its test: `CONTRIBUTING.md` lists them, and each test that it names is
//! there.

use std::collections::BTreeSet;

use loopwright_tests::kit::root;
use syn::{
    Attribute, ItemFn, Macro,
    visit::{self, Visit},
};

use super::sources;

/// What the table stands under.
const HEADING: &str = "## The bars";
/// Fewer rows than there are bars.
const AT_LEAST: usize = 40;

#[derive(Default)]
struct Tests(BTreeSet<String>);

fn is_test(attributes: &[Attribute]) -> bool {
    let of = |attribute: &Attribute| {
        attribute
            .path()
            .segments
            .last()
            .map(|s| s.ident.to_string())
    };
    attributes.iter().filter_map(of).any(|name| name == "test")
}

impl<'ast> Visit<'ast> for Tests {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        if is_test(&item.attrs) {
            self.0.insert(item.sig.ident.to_string());
        }
        visit::visit_item_fn(self, item);
    }

    /// Properties stand in a macro: `fn name(` behind `#[test]`.
    fn visit_macro(&mut self, item: &'ast Macro) {
        let name = item.path.segments.last().map(|s| s.ident.to_string());
        if name.as_deref() == Some("proptest") {
            let text = item.tokens.to_string();
            let mut rest = text.as_str();
            while let Some((_, after)) = rest.split_once("test]") {
                rest = after;
                let name = after.split_once("fn ").map(|(_, name)| name);
                let end = |c: char| !c.is_alphanumeric() && c != '_';
                self.0
                    .extend(name.and_then(|n| n.split(end).next()).map(str::to_owned));
            }
        }
        visit::visit_macro(self, item);
    }
}

/// The rows of the table: what the bar is, and the tests of it.
fn table() -> Vec<(String, Vec<String>)> {
    let text = std::fs::read_to_string(root().join("CONTRIBUTING.md")).expect("it is there");
    let (_, section) = text.split_once(HEADING).expect("the section of the bars");
    let section = section.split("\n## ").next().unwrap_or_default();
    let rows = section.lines().filter(|line| line.starts_with("| "));
    let cells = rows.filter_map(|row| row.trim_matches('|').split_once('|'));
    let all = cells.map(|(bar, tests)| {
        let names = tests.split('`').skip(1).step_by(2).map(str::to_owned);
        (bar.trim().to_owned(), names.collect())
    });
    all.filter(|(bar, _)| bar != "bar").collect()
}

#[test]
fn every_bar_names_tests_that_exist() {
    let mut tests = Tests::default();
    for source in sources::rust() {
        let file = syn::parse_file(&source.text);
        tests.visit_file(&file.unwrap_or_else(|error| panic!("{}: {error}", source.path)));
    }
    let rows = table();
    assert!(
        rows.len() >= AT_LEAST,
        "only {} bars are listed",
        rows.len()
    );
    for (bar, names) in &rows {
        assert!(!names.is_empty(), "no test: {bar}");
        for name in names {
            assert!(
                tests.0.contains(name),
                "`{name}` of the bar `{bar}` is no test"
            );
        }
    }
}
