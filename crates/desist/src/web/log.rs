//! The log for others: the signed checkpoint, the key that signs it, and tiles of hashes. No entries.

use axum::extract::{Path, State};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use desist_engine::notary::{self, Published};
use desist_proof::tile::{TILE_WIDTH, TileId};
use desist_store::tiles;

use super::App;
use super::problem::Problem;

/// What a full tile says never changes.
const FOR_EVER: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=31536000, immutable");
/// A partial tile keeps its content, but a full one takes its place soon.
const FOR_AN_HOUR: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=3600");
/// The checkpoint grows within a second, and the key may change.
const FOR_A_MOMENT: (HeaderName, &str) = (header::CACHE_CONTROL, "public, max-age=1");

/// `/log/checkpoint`: the last signed checkpoint, as a C2SP signed note.
pub async fn checkpoint(State(app): State<App>) -> Response {
    match app.engine.shared().notary.published() {
        Some(published) => ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), FOR_A_MOMENT], published.text.clone()).into_response(),
        None => {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not_signed", "the log was not signed yet; try again in a second").into_response()
        }
    }
}

/// `/log/key`: the verifier keys as C2SP writes them, one a line, the present one first.
pub async fn key(State(app): State<App>) -> Response {
    let text = notary::key_lines(&app.engine.shared().notary.verifiers());
    ([(header::CONTENT_TYPE, "text/plain; charset=utf-8"), FOR_A_MOMENT], text).into_response()
}

/// `/log/tile/...`: a tile of hashes that the last checkpoint covers.
pub async fn tile(State(app): State<App>, Path(path): Path<String>) -> Response {
    let Some(id) = TileId::parse_path(&format!("tile/{path}")) else { return Problem::not_found().into_response() };
    let size = app.engine.shared().notary.published().as_deref().map_or(0, Published::size);
    // Only what was signed: a hash that is shown before could still be lost.
    if TileId::of(size, id.level(), id.index()).is_none_or(|has| has.width() < id.width()) {
        return Problem::not_found().into_response();
    }
    match app.read(move |read| tiles::tile(read, id)).await {
        Ok(bytes) => {
            let keep = if id.width() == TILE_WIDTH { FOR_EVER } else { FOR_AN_HOUR };
            ([(header::CONTENT_TYPE, "application/octet-stream"), keep], bytes).into_response()
        }
        Err(problem) => problem.into_response(),
    }
}
