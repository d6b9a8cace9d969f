//! A page of the application: the metrics of its sessions, in the format that Prometheus reads.
//!
//! In production, let only the monitoring reach it.

use actix_web::{HttpResponse, Resource, http::header::CACHE_CONTROL, web};
use metrics_exporter_prometheus::{BuildError, PrometheusBuilder, PrometheusHandle};
use session_manager::{Builder, observer::Metrics};

/// The upper limits of the buckets for the duration of store calls, in seconds.
const SECONDS: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 2.0];

/// Counts what happens to the sessions of the manager to be built. Returns what renders the page.
pub fn observe(builder: Builder) -> Result<(Builder, PrometheusHandle), BuildError> {
    // First the recorder, because `Metrics::new` describes the metrics to it.
    let recorder = PrometheusBuilder::new()
        .set_buckets(&SECONDS)?
        .install_recorder()?;
    Ok((builder.observe(Metrics::new()), recorder))
}

pub fn page(recorder: PrometheusHandle) -> Resource {
    web::resource("/metrics").get(move || {
        recorder.run_upkeep();
        let response = HttpResponse::Ok()
            .content_type("text/plain; version=0.0.4; charset=utf-8")
            .insert_header((CACHE_CONTROL, "no-store"))
            .body(recorder.render());
        async { response }
    })
}
