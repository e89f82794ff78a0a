//! The places that a lake can be in: a folder, or a bucket of an object store that speaks S3.
//!
//! The crate `object_store` is async; the lake is not. Each call is driven to its end by a small
//! runtime of the lake's own, from whatever thread makes it, and is given up when the process ends.

use super::objects::{Listed, ObjectError, Objects, Put, Stop};
use bytes::Bytes;
use futures_util::TryStreamExt;
use object_store::aws::AmazonS3Builder;
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{
    BackoffConfig, ClientOptions, Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions,
    RetryConfig,
};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::runtime::Runtime;

/// A call that takes longer has failed. The largest is a file of `[lake] file_size`.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// How long a connection may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a call is tried again on its own; whoever called tries again later, and says so.
const RETRY_TIMEOUT: Duration = Duration::from_secs(5);

/// Where a lake is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LakePlace {
    /// A folder, which is made when it is needed.
    Folder(PathBuf),
    /// A bucket.
    S3(S3Place),
}

/// A bucket. What is empty is taken from the environment (`AWS_ACCESS_KEY_ID` and the other names
/// that every tool for S3 knows), or is the default of S3.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct S3Place {
    /// Name of the bucket.
    pub bucket: String,
    /// Folder in it; empty: all of it.
    pub prefix: String,
    /// Another server than Amazon's.
    pub endpoint: String,
    /// Region of the bucket.
    pub region: String,
    /// Whether a server without TLS will do.
    pub allow_http: bool,
    /// Id of the key.
    pub access_key_id: String,
    /// Its secret.
    pub secret_access_key: String,
}

impl std::fmt::Debug for S3Place {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let S3Place { bucket, prefix, endpoint, region, allow_http, .. } = self;
        f.debug_struct("S3Place")
            .field("bucket", bucket)
            .field("prefix", prefix)
            .field("endpoint", endpoint)
            .field("region", region)
            .field("allow_http", allow_http)
            .finish_non_exhaustive()
    }
}

impl std::fmt::Display for LakePlace {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            LakePlace::Folder(folder) => write!(f, "{}", folder.display()),
            LakePlace::S3(S3Place { bucket, prefix, .. }) if prefix.is_empty() => {
                write!(f, "s3://{bucket}")
            }
            LakePlace::S3(S3Place { bucket, prefix, .. }) => write!(f, "s3://{bucket}/{prefix}"),
        }
    }
}

/// An open place.
pub struct Bucket {
    store: Arc<dyn ObjectStore>,
    runtime: Runtime,
    stop: Stop,
}

impl Bucket {
    /// Opens a place. A bucket is not asked whether it is there: it may be unreachable now and not
    /// later.
    ///
    /// # Errors
    /// The folder cannot be made, or the settings of the bucket contradict each other.
    pub fn open(place: &LakePlace, stop: Stop) -> Result<Self, ObjectError> {
        let failed =
            |error: String| ObjectError::Failed { call: "open", path: place.to_string(), error };
        let store: Arc<dyn ObjectStore> = match place {
            LakePlace::Folder(folder) => {
                std::fs::create_dir_all(folder).map_err(|e| failed(e.to_string()))?;
                let folder = LocalFileSystem::new_with_prefix(folder);
                Arc::new(folder.map_err(|e| failed(e.to_string()))?.with_fsync(true))
            }
            LakePlace::S3(s3) => {
                let bucket = builder(s3).build().map_err(|e| failed(e.to_string()))?;
                match s3.prefix.as_str() {
                    "" => Arc::new(bucket),
                    prefix => Arc::new(PrefixStore::new(bucket, prefix)),
                }
            }
        };
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .thread_name("lake")
            .enable_all()
            .build()
            .map_err(|e| failed(e.to_string()))?;
        Ok(Bucket { store, runtime, stop })
    }

    /// Waits for a call, but not beyond the end of the process.
    fn wait<T>(
        &self,
        call: &'static str,
        path: &str,
        answer: impl Future<Output = Result<T, Error>>,
    ) -> Result<T, Refusal> {
        let ended = self.runtime.block_on(async {
            tokio::select! {
                biased;
                () = self.stop.wait() => None,
                answer = answer => Some(answer),
            }
        });
        let Some(answer) = ended else { return Err(Refusal::Failed(ObjectError::Stopped)) };
        answer.map_err(|error| {
            let words = words_of(&error);
            let failed = ObjectError::Failed { call, path: path.to_owned(), error: words };
            match error {
                Error::NotFound { .. } => Refusal::Absent(failed),
                Error::AlreadyExists { .. } => Refusal::Present(failed),
                _ => Refusal::Failed(failed),
            }
        })
    }
}

/// Why a call was not done, with the words for it.
enum Refusal {
    /// There is no such object, or no such bucket.
    Absent(ObjectError),
    /// There is one.
    Present(ObjectError),
    /// Something else.
    Failed(ObjectError),
}

impl From<Refusal> for ObjectError {
    fn from(refusal: Refusal) -> Self {
        let (Refusal::Absent(error) | Refusal::Present(error) | Refusal::Failed(error)) = refusal;
        error
    }
}

/// An error and what it was caused by, in one line.
fn words_of(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !words.contains(&next) {
            words.push_str(": ");
            words.push_str(&next);
        }
        cause = error.source();
    }
    words.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn builder(s3: &S3Place) -> AmazonS3Builder {
    // The client is built with whatever provider of TLS the process has; there is one, and its
    // installing a second time is refused, which is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let options = ClientOptions::new()
        .with_timeout(CALL_TIMEOUT)
        .with_connect_timeout(CONNECT_TIMEOUT)
        .with_allow_http(s3.allow_http);
    let retry = RetryConfig {
        backoff: BackoffConfig { max_backoff: Duration::from_secs(2), ..BackoffConfig::default() },
        max_retries: 3,
        retry_timeout: RETRY_TIMEOUT,
    };
    let mut builder = AmazonS3Builder::from_env()
        .with_bucket_name(&s3.bucket)
        .with_client_options(options)
        .with_retry(retry);
    if !s3.region.is_empty() {
        builder = builder.with_region(&s3.region);
    }
    if !s3.endpoint.is_empty() {
        builder = builder.with_endpoint(&s3.endpoint);
    }
    if !s3.access_key_id.is_empty() {
        builder = builder
            .with_access_key_id(&s3.access_key_id)
            .with_secret_access_key(&s3.secret_access_key);
    }
    builder
}

impl Objects for Bucket {
    fn put_new(&self, path: &str, bytes: Bytes) -> Result<Put, ObjectError> {
        let (location, options) = (Path::from(path), PutOptions::from(PutMode::Create));
        let put = self.store.put_opts(&location, bytes.into(), options);
        match self.wait("write", path, put) {
            Ok(_) => Ok(Put::Made),
            Err(Refusal::Present(_)) => Ok(Put::WasThere),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn get(&self, path: &str) -> Result<Option<Bytes>, ObjectError> {
        let location = Path::from(path);
        let get = async { self.store.get(&location).await?.bytes().await };
        match self.wait("read", path, get) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(Refusal::Absent(_)) => Ok(None),
            Err(refusal) => Err(refusal.into()),
        }
    }

    fn list(&self, folder: &str) -> Result<Vec<Listed>, ObjectError> {
        let location = Path::from(folder);
        let list = self.store.list(Some(&location)).try_collect::<Vec<_>>();
        let listed = self.wait("list", folder, list)?.into_iter().map(|meta| Listed {
            path: meta.location.to_string(),
            bytes: meta.size,
            modified_ms: meta.last_modified.timestamp_millis(),
        });
        Ok(listed.collect())
    }

    fn delete(&self, path: &str) -> Result<(), ObjectError> {
        let location = Path::from(path);
        match self.wait("delete", path, self.store.delete(&location)) {
            Ok(()) | Err(Refusal::Absent(_)) => Ok(()),
            Err(refusal) => Err(refusal.into()),
        }
    }
}
