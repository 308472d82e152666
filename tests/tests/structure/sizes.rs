//! How long files and functions may be.

use proc_macro2::Span;
use syn::{
    Block, ImplItemFn, ItemFn, TraitItemFn,
    spanned::Spanned as _,
    visit::{self, Visit},
};

use super::sources;

const FILE_LINES: usize = 500;
const FUNCTION_LINES: usize = 70;

struct Functions {
    path: String,
    too_long: Vec<String>,
}

impl Functions {
    fn check(&mut self, name: &impl ToString, whole: Span, body: &Block) {
        let lines = body.span().end().line + 1 - whole.start().line.max(body.span().start().line);
        if lines > FUNCTION_LINES {
            self.too_long.push(format!(
                "{}: {} has {lines} lines",
                self.path,
                name.to_string()
            ));
        }
    }
}

impl<'ast> Visit<'ast> for Functions {
    fn visit_item_fn(&mut self, item: &'ast ItemFn) {
        self.check(&item.sig.ident, item.span(), &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast ImplItemFn) {
        self.check(&item.sig.ident, item.span(), &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast TraitItemFn) {
        if let Some(body) = &item.default {
            self.check(&item.sig.ident, item.span(), body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn no_file_outgrows_the_ceiling() {
    let long: Vec<_> = sources::rust()
        .iter()
        .map(|source| (source.text.lines().count(), source.path.clone()))
        .filter(|(lines, _)| *lines > FILE_LINES)
        .collect();
    assert!(long.is_empty(), "over {FILE_LINES} lines: {long:#?}");
}

#[test]
fn no_function_outgrows_the_ceiling() {
    let mut too_long = Vec::new();
    for source in sources::rust() {
        let file = syn::parse_file(&source.text)
            .unwrap_or_else(|error| panic!("{}: {error}", source.path));
        let mut functions = Functions {
            path: source.path,
            too_long: Vec::new(),
        };
        functions.visit_file(&file);
        too_long.append(&mut functions.too_long);
    }
    assert!(
        too_long.is_empty(),
        "over {FUNCTION_LINES} lines: {too_long:#?}"
    );
}
