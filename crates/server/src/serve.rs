//! Listens, and ends in time.

use crate::guard;
use axum::Router;
use axum::serve::ListenerExt;
use std::future::{Future, IntoFuture};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::oneshot;

/// How long requests that are being answered may take after the end was asked for.
const GRACE: Duration = Duration::from_secs(5);

/// Serves until `shutdown` resolves. No connection is taken after that; requests that are being
/// answered get 5 seconds. What the collector has acknowledged is durable either way.
///
/// On a loopback address only requests to loopback names (`localhost`, `127.0.0.1`, `[::1]`) and to
/// `allowed_hosts` (a proxy passes on how it was asked) are answered, others get 421: a web site that
/// lets its name point here must not read the answers. Elsewhere that holds where there are
/// `allowed_hosts`; addresses in digits are answered, too.
///
/// # Errors
/// The listener has no address.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    allowed_hosts: &[String],
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let is_loopback = listener.local_addr()?.ip().is_loopback();
    let router = match is_loopback || !allowed_hosts.is_empty() {
        true => {
            let names = Arc::new(guard::Names { allowed: allowed_hosts.to_vec(), is_loopback });
            router.layer(axum::middleware::from_fn_with_state(names, guard::known_names_only))
        }
        false => router,
    };
    // Answers are small and written at once; waiting for more would only delay them.
    let listener = listener.tap_io(|connection| {
        if let Err(error) = connection.set_nodelay(true) {
            tracing::debug!("a connection stays as it is: {error}");
        }
    });
    let (ending, ended) = oneshot::channel();
    let shutdown = async move {
        shutdown.await;
        // Nobody listens any more only if the server has ended before.
        let _ = ending.send(());
    };
    let out_of_patience = async {
        match ended.await {
            Ok(()) => tokio::time::sleep(GRACE).await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        result = axum::serve(listener, router.into_make_service_with_connect_info::<SocketAddr>()).with_graceful_shutdown(shutdown).into_future() => result,
        () = out_of_patience => {
            tracing::warn!("some requests took more than {GRACE:?} to end and were cut off");
            Ok(())
        }
    }
}
