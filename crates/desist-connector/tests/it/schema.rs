//! What is generated from the types, and what documents must have.

use desist_connector::{FUNCTIONS, PLACEHOLDERS, SHIPPED, json_schema};

use super::world::{read, root, shipped};

/// `UPDATE=1 cargo test -p desist-connector --test it schema` writes the file.
#[test]
fn the_schema_for_editors_is_that_of_the_types() {
    let path = root().join("connectors/manifest.schema.json");
    let current = format!("{}\n", serde_json::to_string_pretty(&json_schema()).expect("JSON"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &current).expect("the file can be written");
    }
    let written = read(&path);
    assert!(written == current, "connectors/manifest.schema.json is stale: run UPDATE=1 cargo test -p desist-connector --test it schema");
}

/// Every key, function and placeholder is explained.
#[test]
fn the_specification_has_every_key_function_and_placeholder() {
    let spec = read(&root().join("docs/connector-spec.md"));
    let mut missing = Vec::new();
    let schema = json_schema();
    let mut waiting = vec![&schema];
    while let Some(schema) = waiting.pop() {
        for (key, member) in schema["properties"].as_object().into_iter().flatten() {
            if !spec.contains(&format!("`{key}`"))
                && !spec.contains(&format!("[{key}]"))
                && !spec.contains(&format!(".{key}]"))
                && !spec.contains(&format!("[{key}."))
            {
                missing.push(key.clone());
            }
            waiting.push(member);
        }
        waiting.extend(["items", "additionalProperties"].iter().filter_map(|key| schema.get(key)));
        waiting.extend(["anyOf", "oneOf"].iter().filter_map(|key| schema[*key].as_array()).flatten());
        let choices = schema["enum"].as_array().into_iter().flatten().chain(schema.get("const"));
        missing.extend(choices.filter_map(|choice| choice.as_str()).filter(|word| !spec.contains(&format!("`{word}`"))).map(str::to_owned));
    }
    missing.extend(FUNCTIONS.iter().filter(|(name, ..)| !spec.contains(&format!("| `{name}` |"))).map(|(name, ..)| (*name).to_owned()));
    missing.extend(PLACEHOLDERS.iter().filter(|(name, _)| !spec.contains(&format!("| `{name}` |"))).map(|(name, _)| (*name).to_owned()));
    assert!(missing.is_empty(), "not in docs/connector-spec.md: {missing:?}");
}

#[test]
fn every_connector_in_the_directory_is_shipped() {
    let files: Vec<_> = shipped().iter().map(|path| read(path)).collect();
    let mut listed: Vec<_> = SHIPPED.iter().map(|shipped| shipped.text.to_owned()).collect();
    assert!(SHIPPED.is_sorted_by_key(|shipped| shipped.id), "by id");
    let mut files = files;
    files.sort();
    listed.sort();
    assert!(files == listed, "list each manifest of connectors/ in shipped.rs");
    for shipped in SHIPPED {
        let dir = if shipped.verified { "connectors" } else { "connectors/unverified" };
        assert_eq!(read(&root().join(dir).join(format!("{}.toml", shipped.id))), shipped.text);
    }
}

/// The tutorial of the specification is the shipped connector, so that it cannot rot.
#[test]
fn the_tutorial_builds_the_shipped_connector() {
    let spec = read(&root().join("docs/connector-spec.md"));
    let (_, tutorial) = spec.split_once("## Tutorial").expect("a tutorial");
    let blocks: String = tutorial.split("```toml\n").skip(1).filter_map(|rest| rest.split_once("```")).map(|(block, _)| block).collect();
    let tutorial: toml::Table = blocks.parse().expect("its blocks are one manifest");
    let shipped: toml::Table = read(&root().join("connectors/adobe-campaign-standard.toml")).parse().expect("TOML");
    assert_eq!(tutorial, shipped);
}
