//! The API's description of itself: fields of a resource, its filters, the index of resources.

use serde_json::{Map, Value, json};

use super::path::{Filter, Resource, Root};
use super::schema::{Access, Field, Schema, Type};

/// What a description needs to know besides the fields.
#[derive(Clone, Copy, Debug)]
pub struct About<'a> {
    /// The root that the caller used.
    pub root: Root,
    /// Public URL up to and with that root, no slash at the end.
    pub href_base: &'a str,
    /// The key under which the filters are found.
    pub pkey: &'a str,
}

/// `resourceType/{name}`: every field, with its type.
pub fn resource(schema: &Schema, about: &About<'_>, is_sortable: &dyn Fn(&str) -> bool) -> Value {
    let (name, About { root, href_base, pkey }) = (schema.resource, about);
    let (label, adobe) = match name {
        "profile" => ("Profiles", "nms:recipient"),
        "service" => ("Services", "nms:service"),
        _ => ("Marketing history", "nms:recipient"),
    };
    let mut content = Map::new();
    for field in schema.fields() {
        match field.name.split_once('.') {
            None => drop(content.insert(field.name.clone(), describe(field, is_sortable(&field.name)))),
            Some((item, part)) => content[item]["content"][part] = describe(&Field { name: part.to_owned(), ..field.clone() }, false),
        }
    }
    json!({
        "content": content,
        "data": format!("/{}/{name}/", root.as_str()),
        "filters": { "href": format!("{href_base}/resourceType/{pkey}/filters/") },
        "help": "", "href": format!("{href_base}/{name}/metadata"), "label": label, "mandatory": false, "name": name,
        "pkgStatus": "never", "readOnly": false, "schema": adobe, "type": "item",
    })
}

fn describe(field: &Field, sortable: bool) -> Value {
    let (ty, technical) = match &field.ty {
        Type::Text(_) => ("string", "string"),
        Type::Flag => ("boolean", "boolean"),
        Type::Date => ("date", "date"),
        Type::Choice(_) => ("enumeration", "byte"),
        Type::Name(_) => ("enumeration", "string"),
        Type::Integer => ("number", "long"),
        Type::Number => ("number", "double"),
        Type::Timestamp => ("date", "datetime"),
        Type::Item if field.name == "subscriptions" => ("collection", "link"),
        Type::Item => ("item", "item"),
    };
    let mut shown = json!({
        "apiName": field.name, "category": "", "dataPolicy": if field.name == "email" { "email" } else { "none" },
        "label": field.label, "readOnly": !matches!(field.access, Access::Caller | Access::OptOut), "resType": technical,
        "sortable": sortable, "type": ty,
    });
    match &field.ty {
        Type::Choice(names) => {
            let value = |(number, name): (usize, &String)| (name.clone(), json!({"name": name, "label": name, "value": number}));
            shown["values"] = Value::Object(names.iter().enumerate().map(value).collect());
        }
        Type::Name(_) => shown["values"] = json!({ field.unset: {"name": field.unset, "label": field.unset, "value": field.unset} }),
        Type::Text(max) => shown["length"] = (*max).into(),
        Type::Item if ty == "collection" => shown["resTarget"] = "subscription".into(),
        Type::Item => shown["content"] = json!({}),
        Type::Flag | Type::Date | Type::Integer | Type::Number | Type::Timestamp => {}
    }
    shown
}

/// The `filters.href` of [`resource`]: each filter with its parameters.
pub fn filters(resource: Resource, about: &About<'_>, pkey_of: &dyn Fn(&str) -> String) -> Value {
    let describe = |filter: &Filter| {
        let name = filter.as_str();
        let parameters = super::query::parameters(*filter, resource);
        let query: Vec<String> =
            parameters.iter().map(|parameter| format!("{parameter}=${}", parameter.trim_end_matches("_parameter"))).collect();
        let parameter = |name: &&str| ((*name).to_owned(), json!({"apiName": name, "type": "string"}));
        let metadata: Map<String, Value> = parameters.iter().map(parameter).collect();
        let shown = json!({
            "PKey": pkey_of(name), "category": "", "condition": "",
            "data": format!("/{}/{}/{name}?{}", about.root.as_str(), resource.as_str(), query.join("&")),
            "formType": "none", "fragmentName": name, "label": name, "metadata": metadata,
        });
        (name.to_owned(), shown)
    };
    Value::Object(Filter::of(about.root, resource).iter().map(describe).collect())
}

/// `profileAndServicesExt` alone: the resources below it.
pub fn index(href_base: &str) -> Value {
    let mut index = json!({"apiName": "resourceType"});
    for resource in [Resource::Profile, Resource::Service] {
        let name = resource.as_str();
        index[name] = json!({
            "content": { "href": format!("{href_base}/{name}/") },
            "data": format!("/{}/{name}/", Root::ProfileAndServicesExt.as_str()), "help": "",
            "href": format!("{href_base}/resourceType/{name}"), "name": name, "type": "collection",
        });
    }
    index
}
