//! A client turns the pages of a long list while others write.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::support::{Seeded, Server, scale};

/// Profiles at scale 1; fifty times as many at full size.
const PROFILES: usize = 2_000;

/// A caller that keeps its connection.
struct Client<'s> {
    agent: ureq::Agent,
    server: &'s Server,
}

impl<'s> Client<'s> {
    fn new(server: &'s Server) -> Self {
        let agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        Self { agent, server }
    }

    fn call(&self, method: &str, url: &str, body: &str) -> (u16, Value) {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(url)
            .header("authorization", format!("Bearer {}", self.server.token))
            .header("x-api-key", &self.server.api_key);
        let answer = if body.is_empty() { self.agent.run(request.body(()).unwrap()) } else { self.agent.run(request.body(body).unwrap()) };
        let mut answer = answer.unwrap();
        let limit = 64 << 20;
        let text = answer.body_mut().with_config().limit(limit).read_to_string().unwrap();
        (answer.status().as_u16(), serde_json::from_str(&text).unwrap())
    }

    fn create(&self, record: &Value) -> String {
        let (status, profile) = self.call("POST", &self.url("/profile/"), &record.to_string());
        assert_eq!(status, 201, "{profile}");
        profile["PKey"].as_str().unwrap().to_owned()
    }

    fn url(&self, path: &str) -> String {
        format!("{}/acme/campaign/profileAndServicesExt{path}", self.server.private)
    }
}

#[test]
fn no_profile_is_missing_or_twice_while_others_write() {
    let profiles = PROFILES * scale();
    let server = Server::start();
    // Those that exist throughout; their last names and e-mails stay, all else changes.
    let next = AtomicUsize::new(0);
    let kept: BTreeSet<String> = std::thread::scope(|scope| {
        let makers: Vec<_> = (0..8)
            .map(|_| {
                scope.spawn(|| {
                    let (client, mut made) = (Client::new(&server), Vec::new());
                    loop {
                        let n = next.fetch_add(1, Ordering::Relaxed);
                        if n >= profiles {
                            return made;
                        }
                        // Every fourth shares its e-mail, every last name is many people's.
                        let record = json!({ "email": format!("p{}@paging.example", n / 4 * 4), "lastName": format!("Kept{}", n % 97) });
                        made.push(client.create(&record));
                    }
                })
            })
            .collect();
        makers.into_iter().flat_map(|maker| maker.join().unwrap()).collect()
    });
    assert_eq!(kept.len(), profiles);

    let done = AtomicBool::new(false);
    let writes = AtomicUsize::new(0);
    let targets: Vec<&String> = kept.iter().collect();
    std::thread::scope(|scope| {
        for writer in 1..=3 {
            let (server, done, writes, targets) = (&server, &done, &writes, &targets);
            scope.spawn(move || {
                let (client, mut random, mut own) = (Client::new(server), Seeded::new(writer), Vec::new());
                while !done.load(Ordering::Relaxed) {
                    let some = client.url(&format!("/profile/{}", targets[random.below(targets.len())]));
                    let status = match random.below(4) {
                        0 => client.call("PATCH", &some, &json!({ "firstName": format!("F{}", random.below(1000)) }).to_string()).0,
                        1 => client.call("PATCH", &some, r#"{"ccpaOptOut":true}"#).0,
                        2 => {
                            let record = json!({ "email": format!("n{}@paging.example", random.below(1_000_000)), "lastName": "Passing" });
                            own.push(client.create(&record));
                            201
                        }
                        _ if own.is_empty() => 200,
                        _ => {
                            let gone = own.swap_remove(random.below(own.len()));
                            client.call("DELETE", &client.url(&format!("/profile/{gone}")), "").0
                        }
                    };
                    assert!(status < 300, "{status}");
                    writes.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        // Whatever happens here, the writers end.
        let paged = std::panic::catch_unwind(|| {
            let (client, mut random) = (Client::new(&server), Seeded::new(0));
            for list in [
                "/profile?",
                "/profile?_order=lastName&",
                "/profile?_order=email%20desc&",
                "/profile/byText?text=Kept&filterType=lastName&",
            ] {
                let mut url = Some(client.url(&format!("{list}_lineCount={}", [37, 211, 1000][random.below(3)])));
                let (mut seen, mut pages) = (Vec::new(), 0);
                while let Some(page) = url {
                    let (status, answer) = client.call("GET", &page, "");
                    assert_eq!(status, 200, "{list}: {answer}");
                    seen.extend(answer["content"].as_array().unwrap().iter().map(|profile| profile["PKey"].as_str().unwrap().to_owned()));
                    url = answer["next"]["href"].as_str().map(str::to_owned);
                    pages += 1;
                }
                let distinct: BTreeSet<String> = seen.iter().cloned().collect();
                assert_eq!(distinct.len(), seen.len(), "{list}: a profile is there twice");
                assert_eq!(kept.difference(&distinct).count(), 0, "{list}: a profile is missing");
                println!("{list} {pages} pages, {} profiles, {} writes so far", seen.len(), writes.load(Ordering::Relaxed));
            }
        });
        done.store(true, Ordering::Relaxed);
        if let Err(panic) = paged {
            std::panic::resume_unwind(panic);
        }
    });
    assert!(writes.load(Ordering::Relaxed) > 20, "there were writers");
    let checked = server.run(&["check"]);
    assert!(checked.status.success(), "{}", String::from_utf8_lossy(&checked.stdout));
}
