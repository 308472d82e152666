//! Browsers: gRPC-Web and CORS, as connect-web and a browser's preflight use them.

use anyhow::{Context as _, Result, ensure};
use http::{HeaderMap, Method, header};
use loopwright_tests::{install, polyglot};

use super::served::Served;

const ORIGIN: &str = "https://app.example";

#[test]
fn a_web_client_starts_a_loop_and_watches_it() -> Result<()> {
    let Some(mut node) = polyglot::node("client.mjs") else {
        return Ok(());
    };
    let served = Served::start(&[("loop.model", "speaks")])?;
    let said = install::output(node.args([&served.server.url, "speak"]))?;
    ensure!(said.contains("COMPLETED: one two three"), "{said}");
    // The text came while it was written, before the line that tells of the end.
    ensure!(said.starts_with("one"), "{said}");
    Ok(())
}

/// The headers of an answer to a web page of this origin.
async fn answer(served: &Served, method: Method, origin: &str) -> Result<HeaderMap> {
    // Fails only where a provider is installed already, and then there is one.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let url = format!("{}/loopwright.v1.LoopService/ListLoops", served.server.url);
    let request = reqwest::Client::new()
        .request(method.clone(), url)
        .header(header::ORIGIN, origin);
    let request = if method == Method::OPTIONS {
        request
            .header(header::ACCESS_CONTROL_REQUEST_METHOD, "POST")
            .header(
                header::ACCESS_CONTROL_REQUEST_HEADERS,
                "authorization,content-type,x-grpc-web,x-user-agent,grpc-timeout",
            )
    } else {
        // One empty message.
        request
            .header(header::CONTENT_TYPE, "application/grpc-web+proto")
            .body(vec![0; 5])
    };
    let response = request.send().await?;
    ensure!(
        response.status().is_success(),
        "{} with {:?}",
        response.status(),
        response.headers()
    );
    Ok(response.headers().clone())
}

/// The words of a list in a header, in lower case.
fn words(headers: &HeaderMap, name: header::HeaderName) -> Result<Vec<String>> {
    let value = headers
        .get(&name)
        .with_context(|| format!("no {name} in {headers:?}"))?;
    Ok(value
        .to_str()?
        .split(',')
        .map(|word| word.trim().to_ascii_lowercase())
        .collect())
}

#[tokio::test]
async fn a_page_of_a_listed_origin_may_call_and_read_the_status() -> Result<()> {
    let served = Served::start(&[("server.cors_origins", ORIGIN)])?;
    let preflight = answer(&served, Method::OPTIONS, ORIGIN).await?;
    ensure!(words(&preflight, header::ACCESS_CONTROL_ALLOW_ORIGIN)? == [ORIGIN]);
    ensure!(words(&preflight, header::ACCESS_CONTROL_ALLOW_METHODS)?.contains(&"post".to_owned()));
    let allowed = words(&preflight, header::ACCESS_CONTROL_ALLOW_HEADERS)?;
    for name in [
        "authorization",
        "content-type",
        "x-grpc-web",
        "x-user-agent",
        "grpc-timeout",
    ] {
        ensure!(
            allowed.iter().any(|it| it == name),
            "{name} is not among {allowed:?}"
        );
    }
    let called = answer(&served, Method::POST, ORIGIN).await?;
    ensure!(words(&called, header::ACCESS_CONTROL_ALLOW_ORIGIN)? == [ORIGIN]);
    let exposed = words(&called, header::ACCESS_CONTROL_EXPOSE_HEADERS)?;
    for name in ["grpc-status", "grpc-message", "grpc-status-details-bin"] {
        ensure!(
            exposed.iter().any(|it| it == name),
            "{name} is not among {exposed:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_page_of_another_origin_is_told_nothing() -> Result<()> {
    for listed in ["", ORIGIN] {
        let more = [("server.cors_origins", listed)];
        let served = Served::start(if listed.is_empty() { &[] } else { &more })?;
        for method in [Method::OPTIONS, Method::POST] {
            let headers = answer(&served, method, "https://other.example").await?;
            let told = headers.get(header::ACCESS_CONTROL_ALLOW_ORIGIN);
            ensure!(told.is_none_or(|told| told == ORIGIN), "{headers:?}");
        }
    }
    Ok(())
}
