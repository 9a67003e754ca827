//! `pointsman rehearse`: the article's pipeline, as a newcomer sees it.
