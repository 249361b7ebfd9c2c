//! `GET /v1/scale`: how large regions should be, in the form of KEDA's metrics-api scaler.
//!
//! A scaler that is told 0, or that finds no number, may take servers away; one that gets an error keeps what it has. So
//! what is not known is an error: 503 where a region that was asked for is not known, or none at all is.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::Admin;
use super::body::refuse;
use crate::pilot::scale::{Region, Scale};
use crate::scale::form::{self, RegionForm, UnknownForm};

#[derive(Default, Deserialize)]
pub struct Wanted {
    zone: Option<String>,
    region: Option<String>,
}

#[derive(Serialize)]
struct Found {
    regions: BTreeMap<String, RegionForm>,
    unknown: Vec<UnknownForm>,
}

pub async fn scale(State(admin): State<Admin>, wanted: Result<Query<Wanted>, QueryRejection>) -> Response {
    match wanted {
        Ok(Query(wanted)) => answer(&admin.scale.scale(), &wanted),
        Err(_) => refuse(StatusCode::BAD_REQUEST, "give zone= and region= once each, or neither"),
    }
}

fn answer(scale: &Scale, wanted: &Wanted) -> Response {
    if scale.regions.is_empty() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "no region is steered by load, or none was looked at yet");
    }
    let regions = chosen(scale, wanted);
    if regions.is_empty() {
        let of = wanted.zone.as_ref().map_or_else(String::new, |zone| format!(" of zone {zone:?}"));
        let what = match &wanted.region {
            Some(region) => format!("no region {region:?}{of} is steered by load"),
            None => format!("no region{of} is steered by load"),
        };
        return refuse(StatusCode::NOT_FOUND, what);
    }
    let mut found = Found { regions: BTreeMap::new(), unknown: vec![] };
    for (name, region) in regions {
        match form::of(&name, region) {
            Ok(form) => drop(found.regions.insert(name, form)),
            Err(unknown) => found.unknown.push(unknown),
        }
    }
    let missing = if wanted.region.is_some() { !found.unknown.is_empty() } else { found.regions.is_empty() };
    if missing {
        let reasons: Vec<String> =
            found.unknown.iter().map(|UnknownForm { region, because }| format!("{region}: {because}")).collect();
        let body = json!({ "error": reasons.join("; "), "unknown": found.unknown });
        return (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response();
    }
    Json(found).into_response()
}

/// By the names that they are shown by: with a zone their own, which are told apart within it.
fn chosen<'s>(scale: &'s Scale, wanted: &Wanted) -> Vec<(String, &'s Region)> {
    let zone = wanted.zone.as_ref().map(|zone| zone.trim_end_matches('.').to_lowercase());
    let named = match &zone {
        None => scale.named(),
        Some(zone) => {
            let of_zone = scale.regions.iter().filter(|region| region.is_of(zone));
            of_zone.map(|region| (region.name.to_string(), region)).collect()
        }
    };
    named.into_iter().filter(|(name, _)| wanted.region.as_ref().is_none_or(|wanted| wanted == name)).collect()
}
