//! A lease that is not renewed ends its registration. The sidecar is real; only our clock is not.

use super::fake::Fake;
use super::*;

#[tokio::test]
async fn a_lease_runs_out_unless_it_is_renewed() {
    let fake = Fake::tcp(&["echo"]);
    let bench = Bench::new(|config| config.tools.lease_ttl = Period::from_secs(30));
    let lease = bench.with(&fake).await.lease_id;
    let namespace = Id::parse("default").unwrap();
    tokio::time::pause();
    for _ in 0..5 {
        tokio::time::advance(Duration::from_secs(29)).await;
        bench.sidecars.renew(&namespace, &lease).unwrap();
        assert_eq!(bench.tools(), ["fake__echo"]);
    }
    tokio::time::advance(Duration::from_secs(31)).await;
    bench.until_tools(&[]).await;
    let error = bench.sidecars.renew(&namespace, &lease).unwrap_err();
    assert_eq!(error.reason(), "LEASE_NOT_FOUND");
    tokio::time::resume();

    let bench = bench.restarted();
    assert_eq!(
        bench.sidecars.recover().await,
        0,
        "it came back from the dead"
    );
    bench.with(&fake).await;
    assert_eq!(bench.tools(), ["fake__echo"]);
}

#[tokio::test]
async fn a_renewal_that_was_answered_holds_even_if_it_came_at_the_last_moment() {
    let fake = Fake::tcp(&["echo"]);
    let bench = Bench::new(|config| config.tools.lease_ttl = Period::from_secs(30));
    let lease = bench.with(&fake).await.lease_id;
    let namespace = Id::parse("default").unwrap();
    tokio::time::pause();
    // The registry is busy while the lease runs out: its end has to wait.
    let busy = bench.sidecars.writer.lock().await;
    tokio::time::advance(Duration::from_secs(31)).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    bench.sidecars.renew(&namespace, &lease).unwrap();
    drop(busy);
    // Whoever waited before us has had its turn when we have ours.
    drop(bench.sidecars.writer.lock().await);
    tokio::task::yield_now().await;
    assert_eq!(bench.tools(), ["fake__echo"]);
    bench.sidecars.renew(&namespace, &lease).unwrap();
    tokio::time::advance(Duration::from_secs(31)).await;
    bench.until_tools(&[]).await;
}
