//! The grammar of expressions, evaluated while it is read.
//!
//! ```text
//! sum     = product (("+" | "-") product)*
//! product = signed (("*" | "/" | "%") signed)*
//! signed  = ("-" | "+") signed | power
//! power   = atom (("^" | "**") signed)?
//! atom    = number | constant | function "(" sum ("," sum)* ")" | "(" sum ")"
//! ```
//! Length and depth are limited; any text yields a number or an error in words.

use super::number::{Number, Valued};

/// Longest expression, in characters.
const MAX_CHARS: usize = 1000;
/// Deepest nesting of parentheses, signs and powers.
const MAX_DEPTH: usize = 64;
/// Most arguments of one function.
const MAX_ARGUMENTS: usize = 64;
const NAMES: &str = "sqrt, abs, round, floor, ceil, min, max, exp, ln, log10, log2, sin, cos, tan, \
    pi and e";

/// The value of an expression, or what is wrong with it.
pub(super) fn evaluate(text: &str) -> Valued {
    let chars: Vec<char> = text.chars().take(MAX_CHARS + 1).collect();
    if chars.len() > MAX_CHARS {
        return Err(format!("it has more than {MAX_CHARS} characters"));
    }
    let mut parser = Parser {
        chars,
        at: 0,
        depth: 0,
    };
    if parser.peek().is_none() {
        return Err("it is empty".to_owned());
    }
    let value = parser.sum()?;
    match parser.peek() {
        None => Ok(value),
        Some(_) => Err(parser.unexpected("an operator or the end")),
    }
}

struct Parser {
    chars: Vec<char>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn sum(&mut self) -> Valued {
        let mut value = self.product()?;
        loop {
            value = match self.peek() {
                Some('+') => value.add(self.skip().product()?)?,
                Some('-' | '−' | '–') => value.subtract(self.skip().product()?)?,
                _ => return Ok(value),
            };
        }
    }

    fn product(&mut self) -> Valued {
        let mut value = self.signed()?;
        loop {
            value = match self.peek() {
                Some('*' | '×' | '·') => value.multiply(self.skip().signed()?)?,
                Some('/' | '÷') => value.divide(self.skip().signed()?)?,
                Some('%') => value.remainder(self.skip().signed()?)?,
                _ => return Ok(value),
            };
        }
    }

    fn signed(&mut self) -> Valued {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("it is nested more than {MAX_DEPTH} deep"));
        }
        let value = match self.peek() {
            Some('-' | '−' | '–') => Ok(self.skip().signed()?.negate()),
            Some('+') => self.skip().signed(),
            _ => self.power(),
        };
        self.depth -= 1;
        value
    }

    fn power(&mut self) -> Valued {
        let base = self.atom()?;
        if self.peek() == Some('^') {
            return base.power(self.skip().signed()?);
        }
        if self.peek() == Some('*') && self.chars.get(self.at + 1) == Some(&'*') {
            self.at += 2;
            return base.power(self.signed()?);
        }
        Ok(base)
    }

    fn atom(&mut self) -> Valued {
        match self.peek() {
            Some('(') => {
                let value = self.skip().sum()?;
                self.expect(')')?;
                Ok(value)
            }
            Some('0'..='9' | '.') => self.number(),
            Some(letter) if letter.is_ascii_alphabetic() => self.named(),
            _ => Err(self.unexpected("a number")),
        }
    }

    fn number(&mut self) -> Valued {
        let start = self.at;
        self.digits();
        if self.chars.get(self.at) == Some(&'.') {
            self.at += 1;
            self.digits();
        }
        let digits = self.at;
        if matches!(self.chars.get(self.at), Some('e' | 'E')) {
            self.at += 1;
            if matches!(self.chars.get(self.at), Some('+' | '-')) {
                self.at += 1;
            }
            let exponent = self.at;
            self.digits();
            if self.at == exponent {
                // "2e" is the number 2 and then something else.
                self.at = digits;
            }
        }
        let text: String = self.chars[start..self.at].iter().collect();
        Number::literal(&text)
    }

    fn named(&mut self) -> Valued {
        let start = self.at;
        while self
            .chars
            .get(self.at)
            .is_some_and(char::is_ascii_alphanumeric)
        {
            self.at += 1;
        }
        let name: String = self.chars[start..self.at]
            .iter()
            .collect::<String>()
            .to_lowercase();
        if self.peek() == Some('(') {
            let arguments = self.skip().arguments()?;
            return apply(&name, &arguments);
        }
        match name.as_str() {
            "pi" => Ok(Number::Float(std::f64::consts::PI)),
            "e" => Ok(Number::Float(std::f64::consts::E)),
            _ => Err(format!(
                "`{}` is not known; there are {NAMES}",
                short(&name)
            )),
        }
    }

    fn arguments(&mut self) -> Result<Vec<Number>, String> {
        let mut arguments = vec![self.sum()?];
        while self.peek() == Some(',') {
            if arguments.len() == MAX_ARGUMENTS {
                return Err(format!(
                    "a function has more than {MAX_ARGUMENTS} arguments"
                ));
            }
            arguments.push(self.skip().sum()?);
        }
        self.expect(')')?;
        Ok(arguments)
    }

    fn digits(&mut self) {
        while self.chars.get(self.at).is_some_and(char::is_ascii_digit) {
            self.at += 1;
        }
    }

    fn expect(&mut self, wanted: char) -> Result<(), String> {
        if self.peek() != Some(wanted) {
            return Err(self.unexpected(&format!("`{wanted}`")));
        }
        self.at += 1;
        Ok(())
    }

    /// The next character that is no space, which is then the current one.
    fn peek(&mut self) -> Option<char> {
        while self.chars.get(self.at).is_some_and(|c| c.is_whitespace()) {
            self.at += 1;
        }
        self.chars.get(self.at).copied()
    }

    fn skip(&mut self) -> &mut Self {
        self.at += 1;
        self
    }

    fn unexpected(&mut self, wanted: &str) -> String {
        match self.peek() {
            Some(found) => {
                format!(
                    "expected {wanted} but found `{found}` at character {}",
                    self.at + 1
                )
            }
            None => format!("expected {wanted} but it ends there"),
        }
    }
}

fn apply(name: &str, arguments: &[Number]) -> Valued {
    let least = |pick: std::cmp::Ordering| {
        let better = |a: Number, b: Number| if b.compare(a) == pick { b } else { a };
        arguments
            .iter()
            .copied()
            .reduce(better)
            .ok_or_else(|| format!("{name} has no arguments"))
    };
    match (name, arguments) {
        ("min", _) => least(std::cmp::Ordering::Less),
        ("max", _) => least(std::cmp::Ordering::Greater),
        ("sqrt", [value]) => value.square_root(),
        ("abs", [value]) => Ok(value.absolute()),
        ("round", [value]) => value.round(),
        ("floor", [value]) => value.floor(),
        ("ceil", [value]) => value.ceiling(),
        ("exp", [value]) => Number::float(value.approximate().exp()),
        ("ln", [value]) => logarithm(*value, f64::ln),
        ("log10", [value]) => logarithm(*value, f64::log10),
        ("log2", [value]) => logarithm(*value, f64::log2),
        ("sin", [value]) => Number::float(value.approximate().sin()),
        ("cos", [value]) => Number::float(value.approximate().cos()),
        ("tan", [value]) => Number::float(value.approximate().tan()),
        (
            "sqrt" | "abs" | "round" | "floor" | "ceil" | "exp" | "ln" | "log10" | "log2" | "sin"
            | "cos" | "tan",
            _,
        ) => Err(format!(
            "{name} takes one argument, not {}",
            arguments.len()
        )),
        _ => Err(format!("`{}` is not known; there are {NAMES}", short(name))),
    }
}

fn logarithm(value: Number, of: impl FnOnce(f64) -> f64) -> Valued {
    if value.approximate() <= 0.0 {
        return Err("a logarithm is of a number above zero".to_owned());
    }
    Number::float(of(value.approximate()))
}

fn short(name: &str) -> String {
    name.chars().take(32).collect()
}
