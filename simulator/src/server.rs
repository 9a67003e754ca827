//! HTTP: the API at `/`, and the simulator's own ways in below `/simulator/`.

use std::sync::Arc;

use axum::Json;
use axum::Router;
use axum::body::Bytes;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::capacity::Rule;
use crate::faults::Fault;
use crate::operations;
use crate::protocol::{self, ApiError};
use crate::query;
use crate::service::Service;
use crate::sessions;
use crate::task::StopCause;

/// All routes.
pub(crate) fn router(service: Arc<Service>) -> Router {
    Router::new()
        .route("/", post(call))
        .route("/simulator/ledger", get(ledger))
        .route("/simulator/faults", get(list_faults).post(add_fault).delete(clear_faults))
        .route("/simulator/capacity", get(list_capacity).post(set_capacity).delete(clear_capacity))
        .route("/simulator/calls", get(calls))
        .route("/simulator/tasks/{id}/stop", post(stop_from_outside))
        .with_state(service)
}

/// AWS's answer, by AWS's clock.
async fn call(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response {
    let mut response = answer(&service, &headers, &body);
    if service.clock_ahead_s != 0 {
        let now = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(service.clock_ahead_s);
        let printer = jiff::fmt::rfc2822::DateTimePrinter::new();
        let date = printer.timestamp_to_rfc9110_string(&now).ok();
        if let Some(date) = date.and_then(|date| date.parse().ok()) {
            response.headers_mut().insert(header::DATE, date);
        }
    }
    response
}

fn answer(service: &Arc<Service>, headers: &HeaderMap, body: &Bytes) -> Response {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let caller = header("authorization").and_then(sessions::access_key);
    let signed_for = header("authorization").and_then(sessions::signed_for).unwrap_or_default();
    if header("content-type").is_some_and(|kind| kind.starts_with(query::CONTENT_TYPE)) {
        service.other_arrivals.write_form(signed_for, body);
        return query::perform(service, caller, body);
    }
    if let Err(error) = service.account().sessions.admit(caller) {
        return error.into_response();
    }
    let quotas = header("x-amz-target").and_then(|target| target.strip_prefix(protocol::QUOTAS));
    if let Some(operation) = quotas {
        service.other_arrivals.write_of(signed_for, operation, body);
        return match operations::quotas(service, operation, body) {
            Ok(value) => protocol::success(&value),
            Err(error) => error.into_response(),
        };
    }
    let operation =
        header("x-amz-target").and_then(|target| target.strip_prefix(protocol::TARGET_PREFIX));
    let operation = operation.filter(|_| header("content-type") == Some(protocol::CONTENT_TYPE));
    let Some(operation) = operation else {
        return ApiError::new("UnknownOperationException", "").into_response();
    };
    service.arrivals.write(operation, body);
    match operations::perform(service, operation, caller, body) {
        Ok(value) => protocol::success(&value),
        Err(error) => error.into_response(),
    }
}

async fn ledger(State(service): State<Arc<Service>>) -> Response {
    match std::fs::read(&service.ledger_path) {
        Ok(text) => ([(header::CONTENT_TYPE, "application/x-ndjson")], text).into_response(),
        Err(error) => ApiError::server(format!("cannot read the ledger: {error}")).into_response(),
    }
}

async fn list_faults(State(service): State<Arc<Service>>) -> Json<Value> {
    let account = service.account();
    Json(json!(account.faults.list().collect::<Vec<_>>()))
}

async fn add_fault(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let fault = serde_json::from_slice::<Fault>(&body).map_err(|error| error.to_string());
    match fault.and_then(|fault| fault.check().map(|()| fault)) {
        Ok(fault) => {
            service.account().faults.add(fault);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error).into_response(),
    }
}

async fn clear_faults(State(service): State<Arc<Service>>) -> StatusCode {
    service.account().faults.clear();
    StatusCode::NO_CONTENT
}

async fn list_capacity(State(service): State<Arc<Service>>) -> Json<Value> {
    let account = service.account();
    Json(json!(account.capacity.in_force(service.clock.scene())))
}

/// Sets it from now on, whatever the scenario has planned for the same launches.
async fn set_capacity(State(service): State<Arc<Service>>, body: Bytes) -> Response {
    let rule = serde_json::from_slice::<Rule>(&body).map_err(|error| error.to_string());
    let checked = rule.and_then(|rule| rule.check().map(|()| rule));
    match checked {
        Ok(rule) if rule.from_ms > 0 => {
            let words = "`from_ms` is for the world; what is set here begins at once";
            (StatusCode::BAD_REQUEST, words).into_response()
        }
        Ok(rule) => {
            service.account().capacity.set(rule);
            StatusCode::NO_CONTENT.into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, error).into_response(),
    }
}

async fn clear_capacity(State(service): State<Arc<Service>>) -> StatusCode {
    service.account().capacity.clear();
    StatusCode::NO_CONTENT
}

async fn calls(State(service): State<Arc<Service>>) -> Json<Value> {
    let account = service.account();
    Json(json!(account.calls))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct StopFromOutside {
    code: String,
    reason: String,
}

async fn stop_from_outside(
    State(service): State<Arc<Service>>,
    Path(id): Path<String>,
    body: Bytes,
) -> Response {
    let StopFromOutside { code, reason } = match serde_json::from_slice(&body) {
        Ok(stop) => stop,
        Err(error) => return (StatusCode::BAD_REQUEST, error.to_string()).into_response(),
    };
    match service.with_task(&id, |task| task.order_stop(StopCause { code, reason })) {
        Some(_) => StatusCode::NO_CONTENT.into_response(),
        None => (StatusCode::NOT_FOUND, format!("no task has the id `{id}`")).into_response(),
    }
}
