//! An informer against a scripted transport: what it lists, from where it watches, and what its handlers hear.
#![allow(clippy::unwrap_used, clippy::panic, missing_docs)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures::future::BoxFuture;
use http_body_util::{BodyExt, StreamBody};
use k8s_openapi::api::core::v1::ConfigMap;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use trireme_client::{Body, BoxError, Client, Event, Informer, InformerOptions, Object, Transport, TransportError, full_body};

/// The answer to one request, in the order of the script.
enum Answer {
    Json(u16, Value),
    /// A watch that says this and stays open until the script's sender is dropped.
    Watch(mpsc::Receiver<Value>),
    Unreachable,
}

#[derive(Clone, Default)]
struct Script {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Script {
    fn then(&self, answer: Answer) {
        self.answers.lock().push_back(answer);
    }

    fn then_watch(&self) -> mpsc::Sender<Value> {
        let (sender, receiver) = mpsc::channel(16);
        self.then(Answer::Watch(receiver));
        sender
    }

    fn asked(&self) -> Vec<String> {
        self.asked.lock().clone()
    }
}

impl Transport for Script {
    fn send(&self, request: http::Request<Bytes>) -> BoxFuture<'static, Result<http::Response<Body>, TransportError>> {
        self.asked.lock().push(request.uri().to_string());
        let answer = self.answers.lock().pop_front();
        Box::pin(async move {
            let respond = |code: u16, body| Ok(http::Response::builder().status(code).body(body).unwrap());
            match answer {
                Some(Answer::Json(code, value)) => respond(code, full_body(value.to_string().into())),
                Some(Answer::Watch(receiver)) => {
                    let frames = futures::stream::unfold(receiver, |mut receiver| async move {
                        let line = format!("{}\n", receiver.recv().await?);
                        Some((Ok::<_, BoxError>(http_body::Frame::data(Bytes::from(line))), receiver))
                    });
                    respond(200, StreamBody::new(frames).boxed_unsync())
                }
                Some(Answer::Unreachable) => Err(TransportError::Connect("refused".into())),
                None => std::future::pending().await,
            }
        })
    }
}

fn object(name: &str, revision: i64) -> Value {
    json!({"metadata": {"name": name, "namespace": "ns", "resourceVersion": revision.to_string(),
        "managedFields": [{"manager": "x"}]}})
}

fn list(revision: i64, items: &[Value]) -> Answer {
    Answer::Json(200, json!({"metadata": {"resourceVersion": revision.to_string()}, "items": items}))
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

type Heard = Arc<Mutex<Vec<String>>>;

fn start(script: &Script) -> (Arc<Informer<ConfigMap>>, Heard, CancellationToken) {
    let cancel = CancellationToken::new();
    let informer = Informer::start(Client::new(Arc::new(script.clone())), InformerOptions::default(), cancel.clone());
    let heard = Heard::default();
    listen(&informer, &heard);
    (informer, heard, cancel)
}

fn listen(informer: &Informer<ConfigMap>, heard: &Heard) {
    let sink = Arc::clone(heard);
    informer.on_event(move |event| {
        let word = match event {
            Event::Added(_) => "+",
            Event::Updated { .. } => "~",
            Event::Deleted(_) => "-",
        };
        let meta = event.object().meta();
        assert!(meta.managed_fields.is_none(), "managedFields are not kept");
        sink.lock().push(format!("{word}{}@{}", event.object().name(), meta.resource_version.as_ref().unwrap()));
    });
}

#[tokio::test(start_paused = true)]
async fn it_resumes_from_the_last_revision_and_lists_again_only_when_that_is_gone() {
    let script = Script::default();
    script.then(Answer::Unreachable);
    script.then(list(10, &[object("a", 5), object("b", 7)]));
    let first = script.then_watch();
    let (informer, heard, cancel) = start(&script);
    informer.wait_synced().await;
    assert_eq!(informer.last_revision(), 10);

    first.send(event("MODIFIED", object("a", 11))).await.unwrap();
    first.send(event("BOOKMARK", object("", 20))).await.unwrap();
    informer.wait_revision(20).await;

    // The server dies: resume after the bookmark.
    let second = script.then_watch();
    drop(first);
    second.send(event("DELETED", object("b", 21))).await.unwrap();
    informer.wait_revision(21).await;

    // The revision is compacted, told as an ERROR event: list again, and tell only the difference.
    script.then(list(40, &[object("a", 11), object("c", 33)]));
    let third = script.then_watch();
    second.send(event("ERROR", json!({"kind": "Status", "code": 410, "reason": "Expired", "message": "too old"}))).await.unwrap();
    informer.wait_revision(40).await;
    third.send(event("BOOKMARK", object("", 41))).await.unwrap();
    informer.wait_revision(41).await;
    assert_eq!(*heard.lock(), ["+a@5", "+b@7", "~a@11", "-b@21", "+c@33"]);

    let asked = script.asked();
    let starts: Vec<(bool, &str)> = asked
        .iter()
        .map(|uri| {
            let from = uri.split("resourceVersion=").nth(1).unwrap().split('&').next().unwrap();
            (uri.contains("watch=true"), from)
        })
        .collect();
    assert_eq!(starts, [(false, "0"), (false, "0"), (true, "10"), (true, "20"), (false, "21"), (true, "40")], "{asked:#?}");

    // A late handler hears what is there.
    let late = Heard::default();
    listen(&informer, &late);
    assert_eq!(*late.lock(), ["+a@11", "+c@33"]);
    cancel.cancel();
}

#[tokio::test(start_paused = true)]
async fn a_refused_watch_with_410_lists_again() {
    let script = Script::default();
    script.then(list(10, &[object("a", 5)]));
    script.then(Answer::Json(410, json!({"kind": "Status", "code": 410, "reason": "Expired"})));
    script.then(list(12, &[]));
    let (informer, heard, _cancel) = start(&script);
    informer.wait_revision(12).await;
    assert_eq!(*heard.lock(), ["+a@5", "-a@5"]);
    assert!(informer.is_empty());
}

#[tokio::test(start_paused = true)]
async fn one_object_that_cannot_be_decoded_does_not_hide_the_others() {
    let script = Script::default();
    let bad = json!({"metadata": {"name": "bad", "namespace": "ns", "resourceVersion": "6"}, "data": {"k": 1}});
    script.then(list(10, &[object("a", 5), bad.clone()]));
    let watch = script.then_watch();
    let (informer, heard, _cancel) = start(&script);
    watch
        .send(event("MODIFIED", {
            let mut bad = bad;
            bad["metadata"]["resourceVersion"] = "15".into();
            bad
        }))
        .await
        .unwrap();
    informer.wait_revision(15).await;
    assert_eq!(*heard.lock(), ["+a@5"]);
}

#[tokio::test(start_paused = true)]
async fn indexes_follow_the_objects() {
    let script = Script::default();
    script.then(list(10, &[object("a", 5), object("b", 6)]));
    let watch = script.then_watch();
    let (informer, _heard, _cancel) = start(&script);
    informer.wait_synced().await;
    let colors = informer.index("color", |map: &ConfigMap| {
        map.data.iter().flatten().filter(|(key, _)| *key == "color").map(|(_, value)| value.clone()).collect()
    });
    let mut red = object("a", 11);
    red["data"] = json!({"color": "red"});
    watch.send(event("MODIFIED", red.clone())).await.unwrap();
    informer.wait_revision(11).await;
    let names = |value: &str| -> Vec<String> { colors.get(value).iter().map(|map| map.name().to_owned()).collect() };
    assert_eq!(names("red"), ["a"]);
    red["metadata"]["resourceVersion"] = "12".into();
    red["data"]["color"] = "blue".into();
    watch.send(event("MODIFIED", red)).await.unwrap();
    informer.wait_revision(12).await;
    assert_eq!((names("red"), names("blue")), (vec![], vec!["a".to_owned()]));
}

#[tokio::test(start_paused = true)]
async fn a_needed_revision_is_asked_for_by_a_new_watch_and_then_by_a_list() {
    let script = Script::default();
    script.then(list(10, &[object("a", 5)]));
    let _silent = script.then_watch();
    let (informer, _heard, _cancel) = start(&script);
    informer.wait_synced().await;
    let second = script.then_watch();
    second.send(event("BOOKMARK", object("", 30))).await.unwrap();
    informer.ensure_revision(30, Duration::from_secs(1)).await;
    assert_eq!(script.asked().iter().filter(|uri| !uri.contains("watch=true")).count(), 1, "one list was enough");

    let _silent_too = script.then_watch();
    script.then(list(50, &[object("a", 5)]));
    informer.ensure_revision(50, Duration::from_secs(1)).await;
    assert_eq!(informer.last_revision(), 50);
}

#[tokio::test(start_paused = true)]
async fn a_handler_may_read_register_and_unregister() {
    let script = Script::default();
    script.then(list(10, &[object("a", 5)]));
    let watch = script.then_watch();
    let (informer, _heard, _cancel) = start(&script);
    informer.wait_synced().await;
    let late = Heard::default();
    let own: Arc<Mutex<Option<trireme_client::Subscription>>> = Arc::default();
    let subscription = {
        let (me, late, own) = (Arc::clone(&informer), Arc::clone(&late), Arc::clone(&own));
        informer.subscribe(move |event| {
            if event.object().name() == "b" {
                assert_eq!(me.len(), 2, "the store holds what is told");
                listen(&me, &late);
                drop(own.lock().take());
            }
        })
    };
    *own.lock() = Some(subscription);
    watch.send(event("ADDED", object("b", 11))).await.unwrap();
    informer.wait_revision(11).await;
    assert_eq!(*late.lock(), ["+a@5", "+b@11"], "neither a gap nor a repetition");
    watch.send(event("ADDED", object("c", 12))).await.unwrap();
    informer.wait_revision(12).await;
    assert_eq!(*late.lock(), ["+a@5", "+b@11", "+c@12"]);
}

#[tokio::test(start_paused = true)]
async fn a_list_replaces_everything_at_once() {
    let script = Script::default();
    script.then(list(10, &[object("a", 5), object("b", 6)]));
    script.then(Answer::Json(410, json!({"kind": "Status", "code": 410, "reason": "Expired"})));
    script.then(list(20, &[object("c", 15), object("d", 16)]));
    let cancel = CancellationToken::new();
    let informer = Informer::<ConfigMap>::start(Client::new(Arc::new(script.clone())), InformerOptions::default(), cancel.clone());
    let seen: Arc<Mutex<Vec<Vec<String>>>> = Arc::default();
    let (me, sink) = (Arc::clone(&informer), Arc::clone(&seen));
    informer.on_event(move |_| sink.lock().push(me.list().iter().map(|map| map.name().to_owned()).collect()));
    informer.wait_revision(20).await;
    let whole: [&[&str]; 2] = [&["a", "b"], &["c", "d"]];
    assert!(seen.lock().iter().all(|names| whole.iter().any(|whole| names == whole)), "{:?}", seen.lock());
}
