//! What a record keeps of a question, and that it can be asked again.

use super::*;

#[test]
fn a_recorded_question_is_asked_again_with_the_same_answer() {
    let house = House::shared();
    let policy = by_tag(rules());
    let mut asked = Asked::with_tags(&["dev", "arm64"]);
    asked.job.variables = (0..200)
        .map(|index| {
            let length = if index == 7 { 5000 } else { 1000 };
            Variable::plain(format!("V{index:03}"), "x".repeat(length))
        })
        .collect();
    let first = asked.decide(&house, &[("by-tag", &policy)]).unwrap();
    let text = serde_json::to_string(&RecordedQuestion::of(&asked.question())).unwrap();
    assert!(text.len() < 80 * 1024, "{}", text.len());
    let recorded: RecordedQuestion = serde_json::from_str(&text).unwrap();
    assert!(recorded.left_out.contains("V007") && recorded.variables.contains_key("V000"));
    let job = recorded.job();
    // With nothing but the record: the settings may have changed since.
    let offer = recorded.offer.as_ref().unwrap();
    let question = recorded.question(&job, &offer.catalog, &offer.bounds, offer.claims_taint);
    let again = decide(&question, &[("by-tag", &policy)], &house.store).unwrap();
    assert_eq!(again.placements, first.placements);
}

#[test]
fn an_offer_takes_little_room_and_a_huge_one_none() {
    let mut asked = Asked::with_tags(&[]);
    let bytes = |asked: &Asked| {
        let recorded = RecordedQuestion::of(&asked.question());
        recorded.offer.map(|offer| serde_json::to_string(&offer).unwrap().len())
    };
    let usual = bytes(&asked).unwrap();
    assert!(usual < 1024, "{usual} bytes");
    let definition = asked.catalog.task_definitions["node"].clone();
    for index in 0..1000 {
        let name = format!("definition-{index}");
        asked.catalog.task_definitions.insert(name.clone(), definition.clone());
        asked.bounds.task_definitions.insert(name);
        if index == 100 {
            assert!(bytes(&asked).is_some());
        }
    }
    assert_eq!(bytes(&asked), None);
}

#[test]
fn a_record_of_an_older_driver_has_no_offer() {
    let asked = Asked::with_tags(&["dev"]);
    let mut json = serde_json::to_value(RecordedQuestion::of(&asked.question())).unwrap();
    json.as_object_mut().unwrap().remove("offer");
    let recorded: RecordedQuestion = serde_json::from_value(json).unwrap();
    assert_eq!((recorded.offer, recorded.tags.len()), (None, 1));
}
