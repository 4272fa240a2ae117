//! containerd's own services, as far as an import needs them: content, leases, names of images. And one question over CRI.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::PathBuf,
    time::Duration,
};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use tokio::{net::UnixStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    metadata::{AsciiMetadataValue, MetadataMap},
    transport::{Channel, Endpoint, Uri},
};
use trireme_proto::{
    containerd::{
        content::{self, WriteAction, content_client::ContentClient},
        images::{self, images_client::ImagesClient},
        leases::{self, leases_client::LeasesClient},
    },
    cri::{self, image_service_client::ImageServiceClient},
};

use crate::{Error, layout::Descriptor};

/// Where CRI keeps what it has.
const NAMESPACE: &str = "k8s.io";
/// CRI shows the images that have this label.
const MANAGED: (&str, &str) = ("io.cri-containerd.image", "managed");
/// Image garbage collection skips images that have this label: they could not be pulled again.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");
/// Which file an image came from, and how many names that file gave.
const STAMP: &str = "trireme.io/tarball";
const STAMP_COUNT: &str = "trireme.io/tarball-names";
/// An agent that is killed in the middle leaves a lease behind; what it holds is garbage after this.
const LEASE_LIFE: Duration = Duration::from_secs(24 * 3600);
const CALL: Duration = Duration::from_secs(60);
/// How long CRI may take to see a name that containerd has.
const SEEN: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(20);
const MAX_MESSAGE_BYTES: usize = 16 << 20;

/// A cheap handle; dials on first use and again when the runtime was away.
#[derive(Debug, Clone)]
pub(crate) struct Containerd {
    channel: Channel,
}

/// While one exists, nothing that is written under it is collected as garbage.
pub(crate) struct Lease<'a> {
    runtime: &'a Containerd,
    id: AsciiMetadataValue,
}

/// A blob on its way into the content store.
pub(crate) struct BlobWrite {
    requests: mpsc::Sender<content::WriteContentRequest>,
    responses: Option<Streaming<content::WriteContentResponse>>,
    start: Option<Start>,
    digest: String,
    size: u64,
    offset: u64,
    labels: BTreeMap<String, String>,
}

/// What opens the stream, together with the first piece.
struct Start {
    client: ContentClient<Channel>,
    stream: Request<ReceiverStream<content::WriteContentRequest>>,
}

impl Containerd {
    pub(crate) fn new(socket: PathBuf) -> Self {
        // The authority is never used: the connector ignores it.
        let channel = Endpoint::from_static("http://runtime.invalid").connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let socket = socket.clone();
            async move { UnixStream::connect(socket).await.map(TokioIo::new) }
        }));
        Self { channel }
    }

    /// Whether all the names exist that a file with this stamp gave.
    pub(crate) async fn has_all_of(&self, stamp: &str) -> Result<bool, Error> {
        let request = images::ListImagesRequest { filters: vec![format!("labels.{STAMP:?}=={stamp}")] };
        let mut client = ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let listed = call("Images.List", client.list(request_of(request, None, Some(CALL))).await)?.images;
        let count = listed.len().to_string();
        Ok(listed.first().is_some_and(|image| image.labels.get(STAMP_COUNT) == Some(&count)))
    }

    /// The names of the images that must stay.
    pub(crate) async fn pinned(&self) -> Result<BTreeSet<String>, Error> {
        let (label, value) = PINNED;
        let request = images::ListImagesRequest { filters: vec![format!("labels.{label:?}=={value}")] };
        let mut client = ImagesClient::new(self.channel.clone()).max_decoding_message_size(MAX_MESSAGE_BYTES);
        let listed = client.list(request_of(request, None, Some(CALL))).await;
        // Another runtime has none of containerd's services: nothing was imported into it.
        if listed.as_ref().is_err_and(|status| status.code() == Code::Unimplemented) {
            return Ok(BTreeSet::new());
        }
        Ok(call("Images.List", listed)?.images.into_iter().map(|image| image.name).collect())
    }

    /// A lease of its own for one import.
    pub(crate) async fn lease(&self, id: &str) -> Result<Lease<'_>, Error> {
        let expire = (Timestamp::now() + LEASE_LIFE).strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let request = leases::CreateRequest { id: id.into(), labels: [("containerd.io/gc.expire".to_owned(), expire)].into() };
        let created = LeasesClient::new(self.channel.clone()).create(request_of(request, None, Some(CALL))).await;
        call("Leases.Create", accept(created, Code::AlreadyExists))?;
        let id =
            id.parse().map_err(|_| Error::Runtime { call: "Leases.Create", message: format!("{id:?} is no lease id"), down: false })?;
        Ok(Lease { runtime: self, id })
    }

    /// Waits until CRI shows an image: CRI learns of new names a moment later.
    pub(crate) async fn shown(&self, name: &str) -> Result<(), Error> {
        let end = tokio::time::Instant::now() + SEEN;
        let mut client = ImageServiceClient::new(self.channel.clone());
        loop {
            let image = Some(cri::ImageSpec { image: name.into(), ..Default::default() });
            let status = client.image_status(cri::ImageStatusRequest { image, verbose: false }).await;
            if call("ImageStatus", status)?.image.is_some() {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                let message = format!("{name} was handed over, and CRI does not show it after {} s", SEEN.as_secs());
                return Err(Error::Runtime { call: "ImageStatus", message, down: false });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

impl Lease<'_> {
    fn request<T>(&self, message: T) -> Request<T> {
        request_of(message, Some(&self.id), Some(CALL))
    }

    /// Whether the content store has a blob, which is then held by this lease, with these labels on it.
    pub(crate) async fn adopt(&self, digest: &str, labels: &BTreeMap<String, String>) -> Result<bool, Error> {
        let lease = self.id.to_str().unwrap_or_default().to_owned();
        let resource = leases::Resource { id: digest.into(), r#type: "content".into() };
        // The blob is leased first and looked up afterwards: the other way round it could be collected in between.
        let hold = leases::AddResourceRequest { id: lease, resource: Some(resource) };
        let held = LeasesClient::new(self.runtime.channel.clone()).add_resource(self.request(hold)).await;
        call("Leases.AddResource", accept(held, Code::NotFound))?;
        let mut client = ContentClient::new(self.runtime.channel.clone());
        let known = client.info(self.request(content::InfoRequest { digest: digest.into() })).await;
        if matches!(&known, Err(status) if status.code() == Code::NotFound) {
            return Ok(false);
        }
        let known = call("Content.Info", known)?.info.unwrap_or_default();
        let missing: Vec<_> = labels.iter().filter(|(k, v)| known.labels.get(*k) != Some(v)).collect();
        if !missing.is_empty() {
            let paths = missing.iter().map(|(k, _)| format!("labels.{k}")).collect();
            let labels = missing.into_iter().map(|(k, v)| (k.clone(), v.clone())).collect();
            let request = content::UpdateRequest {
                info: Some(content::Info { digest: digest.into(), labels, ..Default::default() }),
                update_mask: Some(content::FieldMask { paths }),
            };
            call("Content.Update", client.update(self.request(request)).await)?;
        }
        Ok(true)
    }

    /// Begins to write a blob.
    pub(crate) fn write(&self, digest: &str, size: u64, labels: &BTreeMap<String, String>) -> BlobWrite {
        let (requests, stream) = mpsc::channel(1);
        // A large layer takes as long as it takes.
        let stream = request_of(ReceiverStream::new(stream), Some(&self.id), None);
        BlobWrite {
            requests,
            responses: None,
            start: Some(Start { client: ContentClient::new(self.runtime.channel.clone()), stream }),
            digest: digest.into(),
            size,
            offset: 0,
            labels: labels.clone(),
        }
    }

    /// Gives an image a name, or moves the name to it.
    pub(crate) async fn name(&self, name: &str, target: &Descriptor, stamp: Option<(&str, usize)>) -> Result<(), Error> {
        let mut labels: HashMap<String, String> = [MANAGED, PINNED].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        if let Some((stamp, count)) = stamp {
            labels.extend([(STAMP.to_owned(), stamp.to_owned()), (STAMP_COUNT.to_owned(), count.to_string())]);
        }
        let target = images::Descriptor {
            media_type: target.media_type.clone(),
            digest: target.digest.clone(),
            size: i64::try_from(target.size).unwrap_or(i64::MAX),
            annotations: Default::default(),
        };
        let paths = labels.keys().map(|k| format!("labels.{k}")).chain(["target".to_owned()]).collect();
        let image = images::Image { name: name.into(), labels, target: Some(target) };
        let mut client = ImagesClient::new(self.runtime.channel.clone());
        let created = client.create(self.request(images::CreateImageRequest { image: Some(image.clone()) })).await;
        if matches!(&created, Err(status) if status.code() == Code::AlreadyExists) {
            let update_mask = Some(images::FieldMask { paths });
            let request = images::UpdateImageRequest { image: Some(image), update_mask };
            return call("Images.Update", client.update(self.request(request)).await).map(drop);
        }
        call("Images.Create", created).map(drop)
    }

    /// Ends it; what has no name by now may be collected.
    pub(crate) async fn release(self) -> Result<(), Error> {
        let request = leases::DeleteRequest { id: self.id.to_str().unwrap_or_default().into(), sync: false };
        let deleted = LeasesClient::new(self.runtime.channel.clone()).delete(request_of(request, None, Some(CALL))).await;
        call("Leases.Delete", accept(deleted, Code::NotFound)).map(drop)
    }
}

impl BlobWrite {
    /// Writes the next piece.
    pub(crate) async fn piece(&mut self, data: Bytes) -> Result<(), Error> {
        let length = data.len() as u64;
        self.send(WriteAction::Write, data).await?;
        self.offset += length;
        Ok(())
    }

    /// Makes it a blob of the content store, which compares size and digest.
    pub(crate) async fn commit(mut self) -> Result<(), Error> {
        if self.start.is_some() {
            self.send(WriteAction::Write, Bytes::new()).await?;
        }
        self.send(WriteAction::Commit, Bytes::new()).await
    }

    async fn send(&mut self, action: WriteAction, data: Bytes) -> Result<(), Error> {
        let message = content::WriteContentRequest {
            action: action.into(),
            r#ref: format!("trireme-import-{}", self.digest),
            total: i64::try_from(self.size).unwrap_or(i64::MAX),
            expected: self.digest.clone(),
            offset: i64::try_from(self.offset).unwrap_or(i64::MAX),
            data,
            labels: if action == WriteAction::Commit { self.labels.clone().into_iter().collect() } else { Default::default() },
        };
        // A stream that containerd ended has its reason in the response below.
        let _ = self.requests.send(message).await;
        if let Some(Start { mut client, stream }) = self.start.take() {
            self.responses = Some(call("Content.Write", client.write(stream).await)?);
        }
        let Some(responses) = &mut self.responses else { return Ok(()) };
        match responses.message().await {
            Ok(Some(_)) => Ok(()),
            Ok(None) => Err(Error::Runtime { call: "Content.Write", message: "ended before the commit".into(), down: true }),
            // Two files may hold the same layer, and a pull may be as quick as we are.
            Err(status) if status.code() == Code::AlreadyExists && action == WriteAction::Commit => Ok(()),
            Err(status) => Err(failure("Content.Write", &status)),
        }
    }
}

fn request_of<T>(message: T, lease: Option<&AsciiMetadataValue>, timeout: Option<Duration>) -> Request<T> {
    let mut request = Request::new(message);
    let metadata: &mut MetadataMap = request.metadata_mut();
    metadata.insert("containerd-namespace", AsciiMetadataValue::from_static(NAMESPACE));
    if let Some(lease) = lease {
        metadata.insert("containerd-lease", lease.clone());
    }
    if let Some(timeout) = timeout {
        request.set_timeout(timeout);
    }
    request
}

/// One refusal that means the thing is as it should be.
fn accept<T: Default>(answer: Result<tonic::Response<T>, Status>, fine: Code) -> Result<tonic::Response<T>, Status> {
    match answer {
        Err(status) if status.code() == fine => Ok(tonic::Response::new(T::default())),
        other => other,
    }
}

fn call<T>(name: &'static str, answer: Result<tonic::Response<T>, Status>) -> Result<T, Error> {
    answer.map(tonic::Response::into_inner).map_err(|status| failure(name, &status))
}

fn failure(call: &'static str, status: &Status) -> Error {
    match status.code() {
        Code::Unimplemented => {
            // An error that waiting does not resolve.
            Error::Archive(format!("the container runtime has no {call}: tarballs can be imported into containerd only"))
        }
        code => {
            let broken = std::error::Error::source(status).is_some();
            let down = code == Code::Unavailable || (broken && matches!(code, Code::Unknown | Code::Cancelled));
            Error::Runtime { call, message: status.message().into(), down }
        }
    }
}
