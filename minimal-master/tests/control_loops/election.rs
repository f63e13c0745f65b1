//! Of several candidates one leads, and the next takes over.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use kube::Client;
use sluice_client::election::{self, Candidate};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::harness::{Master, eventually};

struct Runner {
    stop: CancellationToken,
    leading: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

fn candidate(client: &Client, name: &str, all: &Arc<AtomicUsize>) -> Runner {
    let candidate = Candidate {
        retry_period: Duration::from_millis(100),
        ..Candidate::new("kube-system", "test", name.into())
    };
    let (stop, leading) = (CancellationToken::new(), Arc::new(AtomicUsize::new(0)));
    let (mine, all) = (leading.clone(), all.clone());
    let lead = move |term: CancellationToken| {
        let (mine, all) = (mine.clone(), all.clone());
        async move {
            assert_eq!(all.fetch_add(1, Ordering::SeqCst), 0, "two leaders at once");
            mine.fetch_add(1, Ordering::SeqCst);
            term.cancelled().await;
            mine.fetch_sub(1, Ordering::SeqCst);
            all.fetch_sub(1, Ordering::SeqCst);
        }
    };
    let task = tokio::spawn(election::run(client.clone(), candidate, stop.clone(), lead));
    Runner {
        stop,
        leading,
        task,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_candidate_stands_by_until_the_first_steps_down() {
    let master = Master::without_loops().await;
    let all = Arc::new(AtomicUsize::new(0));
    let leads = |runner: &Runner| runner.leading.load(Ordering::SeqCst) == 1;
    let first = candidate(&master.client, "first", &all);
    eventually("the first leads", async || leads(&first).then_some(())).await;
    let second = candidate(&master.client, "second", &all);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(leads(&first) && !leads(&second));
    first.stop.cancel();
    first.task.await.unwrap();
    eventually("the second leads", async || leads(&second).then_some(())).await;
    second.stop.cancel();
    second.task.await.unwrap();
    master.stop().await;
}
