//! `loopwright sidecar`: one serves, another calls, without a model and without a server.

use std::process::{Child, Output};

use anyhow::{Result, ensure};
use loopwright_tests::scene::{eventually, loopwright};

/// A sidecar that ends with its test.
struct Served(Child);

impl Drop for Served {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_tool_is_called_without_a_model() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let url = format!("unix:{}", dir.path().join("calc.sock").display());
    let args = ["sidecar", "calc", "--no-register", "--listen", &url];
    let serving = loopwright(dir.path(), &args)?
        .stderr(std::process::Stdio::null())
        .spawn()?;
    let _serving = Served(serving);
    let call = |tool: &str, arguments: &str| -> Result<Output> {
        let args = ["sidecar", "call", &url, tool, arguments];
        Ok(loopwright(dir.path(), &args)?.output()?)
    };
    let sum = r#"{"expression": "(17 + 4) * 2"}"#;
    eventually("the sidecar answers", || async {
        Ok(call("evaluate", sum)?.status.success())
    })
    .await?;
    let output = call("evaluate", sum)?;
    assert_eq!(
        String::from_utf8(output.stdout)?.trim(),
        "(17 + 4) * 2 = 42"
    );
    // What fails is 1, and says which part was wrong.
    let rows = [
        ("evaluate", r#"{"expression": "1 +"}"#, "failed"),
        ("evaluate", "{", "JSON"),
        ("evaluate", r#"{"formula": "1"}"#, "expression"),
        ("no_such", "{}", "no_such"),
    ];
    for (tool, arguments, word) in rows {
        let output = call(tool, arguments)?;
        let err = String::from_utf8_lossy(&output.stderr);
        ensure!(
            output.status.code() == Some(1),
            "{tool} {arguments}: {output:?}"
        );
        ensure!(err.contains(word), "{tool} {arguments}: no {word} in {err}");
    }
    Ok(())
}
