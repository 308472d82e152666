//! The sidecar `calc`: one read-only tool that evaluates an arithmetic expression.

mod expression;
mod number;

use loopwright_tools::{Sidecar, Tool, ToolContext, ToolError};
use schemars::JsonSchema;
use serde::Deserialize;

const DESCRIPTION: &str = "Evaluates an arithmetic expression and returns its value. Knows + - * / \
    % (remainder), ^ (power), parentheses, the constants pi and e, and the functions sqrt, abs, round, \
    floor, ceil, min, max, exp, ln, log10, log2, sin, cos, tan (radians). Example: (17 + 4) * 2";

/// Arguments of `evaluate`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Evaluate {
    /// The expression, such as "(17 + 4) * 2". At most 1000 characters.
    expression: String,
}

/// The sidecar `calc` under another name or its own.
#[must_use]
pub fn calc(name: &str) -> Sidecar {
    let evaluate = |_: ToolContext, args: Evaluate| async move { evaluate(&args.expression) };
    Sidecar::new(name)
        .version(env!("CARGO_PKG_VERSION"))
        .tool(Tool::new("evaluate", DESCRIPTION, evaluate).read_only())
}

fn evaluate(text: &str) -> Result<String, ToolError> {
    let value = expression::evaluate(text).map_err(|fault| {
        ToolError::failed(format!("The expression cannot be evaluated: {fault}."))
    })?;
    let (shown, exact) = value.shown();
    let relation = if exact { "=" } else { "is about" };
    Ok(format!("{} {relation} {shown}", text.trim()))
}

#[cfg(test)]
mod tests;
