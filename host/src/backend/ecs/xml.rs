//! Answers of AWS's query protocol as trees: pure.

use aws_smithy_xml::decode::{Document, ScopedDecoder, try_data};

/// An element with its text, or with its children.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Node {
    name: String,
    text: String,
    children: Vec<Node>,
}

impl Node {
    /// Reads a document whose root is called `root`; elements with one of the names `inner` have children, all
    /// others have text. `None` for anything else.
    pub(super) fn read(xml: &str, root: &str, inner: &[&str]) -> Option<Self> {
        let mut document = Document::new(xml);
        let element = document.root_element().ok()?;
        (element.start_el().local() == root).then(|| of(element, inner, true))
    }

    /// The text of the child `name`; empty where there is none.
    pub(super) fn text(&self, name: &str) -> &str {
        self.child(name).map_or("", |child| child.text.as_str())
    }

    /// The first child of this name.
    pub(super) fn child(&self, name: &str) -> Option<&Self> {
        self.children.iter().find(|child| child.name == name)
    }

    /// The items of the list `name`, whatever they are called.
    pub(super) fn list(&self, name: &str) -> &[Self] {
        self.child(name).map_or(&[], |list| list.children.as_slice())
    }

    /// Where all of its children are.
    pub(super) fn children(&self) -> &[Self] {
        &self.children
    }

    /// What the element is called.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The element's own text.
    pub(super) fn own_text(&self) -> &str {
        &self.text
    }
}

fn of(mut element: ScopedDecoder<'_, '_>, inner: &[&str], is_root: bool) -> Node {
    let mut node = Node { name: element.start_el().local().to_owned(), ..Node::default() };
    if is_root || inner.contains(&node.name.as_str()) {
        while let Some(child) = element.next_tag() {
            node.children.push(of(child, inner, false));
        }
    } else {
        // What has children and is not asked about has no text.
        node.text = try_data(&mut element).map(|text| text.trim().to_owned()).unwrap_or_default();
    }
    node
}

#[cfg(test)]
mod tests {
    use super::Node;

    #[test]
    fn a_tree_has_what_was_asked_for() {
        let xml = "<?xml version=\"1.0\"?><R xmlns=\"x\"><requestId>1</requestId><set>\
                   <item><id>a &amp; b</id><other><deep>x</deep></other></item><item><id>c</id></item></set><empty/></R>";
        let node = Node::read(xml, "R", &["set", "item"]).unwrap();
        assert_eq!(node.text("requestId"), "1");
        let ids: Vec<&str> = node.list("set").iter().map(|item| item.text("id")).collect();
        assert_eq!(ids, ["a & b", "c"]);
        assert_eq!(node.list("set")[0].text("other"), "");
        assert_eq!(node.list("empty").len(), 0);
        assert_eq!(Node::read(xml, "S", &[]), None);
        assert_eq!(Node::read("<html", "R", &[]), None);
    }
}
