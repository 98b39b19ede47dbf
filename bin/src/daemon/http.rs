//! HTTP between nodes and from people, and `GET /health` for every client (ADR 1: axum next to actix).
//!
//! `interrex_actors::handlers` handles a request; this module checks who may ask, and translates to HTTP.

use std::sync::Arc;

use axum::{
    Json, Router,
    body::Bytes,
    extract::{FromRequest, Request, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use interrex_actors::{
    handlers::{self, Handled, Refusal, RefusalKind, peers, people},
    node::Shared,
    wire::{ApiAnswer, ApiError, Asked, SECRET_HEADER},
};
use serde::{Serialize, de::DeserializeOwned};
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::connections;

struct Api {
    shared: Arc<Shared>,
    secret: Arc<str>,
}

/// Serves until the process ends.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>, secret: Arc<str>) {
    let routes = Router::new()
        .route("/health", get(health))
        .route(
            "/api/cluster/heartbeat",
            post(async |api: Door, Admitted(body)| found(peers::heartbeat(&api.shared, &body))),
        )
        .route(
            "/api/cluster/journal",
            post(async |api: Door, Admitted(body)| done(peers::journal(&api.shared, &body))),
        )
        .route(
            "/api/cluster/notify",
            post(async |api: Door, Admitted(body)| done(peers::notify(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/fence",
            post(async |api: Door, Admitted(body)| done(peers::fence(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/lift-fence",
            post(async |api: Door, Admitted(body)| done(peers::lift_fence(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/accept-handover",
            post(async |api: Door, Admitted(body)| begun(peers::accept_handover(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/take-over",
            post(async |api: Door, Admitted(body)| done(peers::take_over(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/failover",
            post(async |api: Door, Admitted(body)| begun(people::switchover(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/schedule",
            post(async |api: Door, Admitted(body)| begun(people::schedule(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/plan",
            post(async |api: Door, Admitted(body)| done(people::planned(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/promote-to-main",
            post(async |api: Door, Admitted(body)| begun(people::promote(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/rejoin",
            post(async |api: Door, Admitted(body)| begun(people::rejoin(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/run/cancel",
            post(async |api: Door, Admitted(body)| begun(people::cancel(&api.shared, body).await)),
        )
        .route(
            "/api/cluster/check-main-status",
            get(async |api: Door| found(people::main_status(&api.shared))),
        )
        .fallback(not_found)
        .with_state(Arc::new(Api { shared, secret }));
    connections::serve(listener, routes).await;
}

type Door = State<Arc<Api>>;

fn answer(status: StatusCode, data: impl Serialize) -> Response {
    (status, Json(ApiAnswer { success: true, data: Some(data), error: None })).into_response()
}

fn found(data: impl Serialize) -> Response {
    answer(StatusCode::OK, data)
}

fn done(handled: Handled<impl Serialize>) -> Response {
    handled.map_or_else(refused, found)
}

/// The answer to a request whose work continues after the answer.
fn begun(handled: Handled<impl Serialize>) -> Response {
    handled.map_or_else(refused, |data| answer(StatusCode::ACCEPTED, data))
}

fn refused(Refusal { kind, code, message }: Refusal) -> Response {
    let status = match kind {
        RefusalKind::BadRequest => StatusCode::BAD_REQUEST,
        RefusalKind::Forbidden => StatusCode::FORBIDDEN,
        RefusalKind::Conflict => StatusCode::CONFLICT,
        RefusalKind::Failed => StatusCode::INTERNAL_SERVER_ERROR,
        RefusalKind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        RefusalKind::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    };
    refuse(status, code, message)
}

fn refuse(status: StatusCode, code: &str, message: impl Into<String>) -> Response {
    let error = ApiError { code: code.to_owned(), message: message.into() };
    (status, Json(ApiAnswer::<()> { success: false, data: None, error: Some(error) })).into_response()
}

async fn not_found() -> Response {
    refuse(StatusCode::NOT_FOUND, "not_found", "there is nothing at this path; see GET /health")
}

/// The whole report, with 200 if the node is healthy, and 503 if not.
async fn health(api: Door) -> Response {
    let report = api.shared.report();
    let status = if report.healthy { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    answer(status, report)
}

/// A valid body for this cluster, from a client with the cluster's secret.
struct Admitted<T>(T);

impl<T: Asked + DeserializeOwned> FromRequest<Arc<Api>> for Admitted<T> {
    type Rejection = Response;

    async fn from_request(request: Request, api: &Arc<Api>) -> Result<Self, Response> {
        let shown = request.headers().get(SECRET_HEADER).map_or(&b""[..], |value| value.as_bytes());
        if !bool::from(shown.ct_eq(api.secret.as_bytes())) {
            let message = format!("the header {SECRET_HEADER} does not carry this cluster's secret");
            return Err(refuse(StatusCode::UNAUTHORIZED, "wrong_secret", message));
        }
        let body = Bytes::from_request(request, api).await.map_err(IntoResponse::into_response)?;
        let body: &[u8] = if body.is_empty() && T::MAY_BE_EMPTY { b"{}" } else { &body };
        let body: T = serde_json::from_slice(body)
            .map_err(|error| refuse(StatusCode::BAD_REQUEST, "bad_body", error.to_string()))?;
        handlers::admit(&api.shared, &body).map_err(refused)?;
        Ok(Self(body))
    }
}
