//! Values and faults by table; any text at all by property.

#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;
use loopwright_tools::serde_json::json;
use proptest::prelude::*;

#[test]
fn expressions_have_the_value_that_a_person_expects() {
    let table = [
        ("17 * 4", "17 * 4 = 68"),
        ("(17 + 4) * 2", "(17 + 4) * 2 = 42"),
        (" 1+2*3 ", "1+2*3 = 7"),
        ("0.1 + 0.2", "0.1 + 0.2 = 0.3"),
        ("1/3*3", "1/3*3 = 1"),
        ("1/8", "1/8 = 0.125"),
        ("-7/2", "-7/2 = -3.5"),
        ("2/3", "2/3 is about 0.666666666666667"),
        ("2^10", "2^10 = 1024"),
        ("2**3**2", "2**3**2 = 512"),
        ("-2^2", "-2^2 = -4"),
        ("2^-2", "2^-2 = 0.25"),
        ("2^0.5", "2^0.5 is about 1.4142135623731"),
        ("2^64", "2^64 = 18446744073709551616"),
        (
            "123456789 * 987654321",
            "123456789 * 987654321 = 121932631112635269",
        ),
        ("10 % 3", "10 % 3 = 1"),
        ("-7 % 3", "-7 % 3 = 2"),
        ("5.5 % 2", "5.5 % 2 = 1.5"),
        ("sqrt(144)", "sqrt(144) = 12"),
        ("sqrt(2)", "sqrt(2) is about 1.4142135623731"),
        (
            "round(2.5) + floor(-2.5) + ceil(-2.5)",
            "round(2.5) + floor(-2.5) + ceil(-2.5) = -2",
        ),
        (
            "max(1, 2.5, -3) - min(4, 3)",
            "max(1, 2.5, -3) - min(4, 3) = -0.5",
        ),
        ("2 * PI", "2 * PI is about 6.28318530717959"),
        ("ln(e)", "ln(e) is about 1"),
        ("1e3 + 1.5E-1", "1e3 + 1.5E-1 = 1000.15"),
        ("10^40", "10^40 is about 1e40"),
        ("1 - -1", "1 - -1 = 2"),
        ("6 × 7 ÷ 2", "6 × 7 ÷ 2 = 21"),
        ("sin(0)", "sin(0) is about 0"),
    ];
    for (text, expected) in table {
        assert_eq!(evaluate(text).unwrap(), expected);
    }
}

#[test]
fn faults_say_what_and_where() {
    let deep = format!("{}1{}", "(".repeat(100), ")".repeat(100));
    let signs = format!("{}1", "-".repeat(100));
    let long = "1+".repeat(600);
    let table = [
        ("", "empty"),
        ("1 +", "ends there"),
        ("1 + )", "`)` at character 5"),
        ("2 (3)", "expected an operator or the end but found `(`"),
        ("(1", "expected `)`"),
        ("1/0", "division by zero"),
        ("1/(0.5-0.5)", "division by zero"),
        ("5 % 0", "division by zero"),
        ("0^-1", "division by zero"),
        ("sqrt(-1)", "not a real number"),
        ("ln(0)", "above zero"),
        ("10^400", "too large"),
        ("foo(1)", "`foo` is not known; there are sqrt"),
        ("x + 1", "`x` is not known"),
        ("sqrt(1, 2)", "one argument, not 2"),
        ("1.2.3", "found `.`"),
        (".", "not a number"),
        ("rm -rf /", "`rm` is not known"),
        (deep.as_str(), "64 deep"),
        (signs.as_str(), "64 deep"),
        (long.as_str(), "1000 characters"),
    ];
    for (text, expected) in table {
        let fault = format!("{:?}", evaluate(text).unwrap_err());
        assert!(fault.contains(expected), "{text}: {fault}");
    }
}

#[tokio::test]
async fn the_tool_answers_and_explains() {
    let calc = calc("calc");
    let answer = calc
        .call("evaluate", json!({"expression": "6 * 7"}))
        .await
        .unwrap();
    assert_eq!((answer.text(), answer.is_success()), ("6 * 7 = 42", true));
    let fault = calc
        .call("evaluate", json!({"expression": "6 *"}))
        .await
        .unwrap();
    assert!(!fault.is_success() && !fault.is_not_executed(), "{fault:?}");
    let misnamed = calc.call("evaluate", json!({"expr": "1"})).await.unwrap();
    assert!(misnamed.is_not_executed(), "{misnamed:?}");
    assert!(
        misnamed.text().contains("`expression` is missing"),
        "{misnamed:?}"
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in any::<String>()) {
        let _ = evaluate(&text);
    }

    #[test]
    fn no_expression_makes_it_panic(text in "[-+*/%^(),.0-9e a-z]{0,60}") {
        let _ = evaluate(&text);
    }

    #[test]
    fn extreme_numbers_do_not_make_it_panic(
        a in any::<i128>(), b in any::<i128>(), operator in "[-+*/%^]", den in 1_i128..,
    ) {
        let _ = evaluate(&format!("({a}/{den}) {operator} {b}"));
        let _ = evaluate(&format!("round({a} {operator} {b}/{den}) % max({b}, {den})"));
    }

    #[test]
    fn whole_sums_and_products_are_exact(a in -1_000_000_000_000_i128..1_000_000_000_000, b in -1_000_000_000_i128..1_000_000_000) {
        let text = format!("{a} * {b} + {a} - {b}");
        prop_assert_eq!(evaluate(&text).unwrap(), format!("{text} = {}", a * b + a - b));
    }
}
