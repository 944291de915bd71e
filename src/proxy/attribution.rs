//! Attributes a flow to the tool call of an agent, and keeps the refusal of the flow for the agent.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::identity::{
    Attributed, Attribution, CallBasis, Caller, FlowClues, Refused, Sessions, Trust,
};
use crate::name::{Path, Target};
use crate::policy::{Attempt, Category, McpCall};
use crate::record::FlowFacts;

use super::flow::Flow;
use super::refusal::Code;

/// `tidegate.call.basis` of a flow without a call, in a session with tool calls.
const NO_CALL: &str = "none";

/// The parts of a request that help to find its call.
#[derive(Clone, Copy, Debug, Default)]
struct Asked<'a> {
    path: Option<&'a Path>,
    server: Option<&'a str>,
}

impl Flow {
    /// Sets the session and the tool call of the flow, by its caller and its target.
    pub(super) fn attribute(&mut self, caller: &Caller) {
        self.look_for_call(caller, Asked::default());
        self.set_session(caller);
    }

    /// Like [`Flow::attribute`], after the decision: by the request and its category as well.
    pub(super) fn attribute_judged(&mut self, caller: &Caller, attempt: &Attempt<'_>) {
        let asked = match attempt {
            Attempt::Connect => Asked::default(),
            Attempt::Request {
                path,
                request_facts,
                ..
            } => {
                let mcp = request_facts.and_then(|request_facts| request_facts.mcp.as_ref());
                Asked {
                    path: Some(path),
                    server: mcp.and_then(|mcp| mcp.server.as_deref()),
                }
            }
        };
        self.look_for_call(caller, asked);
        let by_agent = self.facts.call_basis == Some(CallBasis::Url.as_str());
        if by_agent && self.facts.category.is_some_and(is_of_agent) {
            self.set_call(Attribution::None);
        }
        if let Attempt::Request {
            request_facts: Some(request_facts),
            ..
        } = attempt
            && let Some(mcp) = &request_facts.mcp
        {
            self.agree_with_meta(caller, mcp);
        }
        self.agree_with_headers();
        self.set_session(caller);
    }

    /// Sets the agent's own session: that of the tool call, else the present one of the agent. A
    /// command may keep the variables of an earlier session of its agent.
    fn set_session(&mut self, caller: &Caller) {
        let facts = &self.facts;
        let of_call = facts.call.as_ref().and_then(|call| call.session.clone());
        let of_call = of_call.map(|id| (id, facts.call_trust));
        let own = caller.session.as_ref();
        let present = own.and_then(|_| self.sessions().current_id(caller));
        let found = match (of_call, present) {
            (Some((of_call, _)), Some(present)) if present.0 == of_call => Some(present),
            (of_call, present) => of_call.or(present),
        };
        let found = found.filter(|(id, _)| own != Some(id));
        let facts = &mut self.facts;
        facts.session = own.cloned();
        facts.root.clone_from(&caller.root);
        facts.trust = caller.trust.as_str();
        if let Some((id, trust)) = found {
            let root = caller.root.as_ref().or(own);
            facts.root = root.filter(|root| **root != id).cloned();
            facts.session = Some(id);
            if trust != Trust::Verified {
                facts.trust = trust.as_str();
            }
        }
    }

    fn look_for_call(&mut self, caller: &Caller, asked: Asked<'_>) {
        if caller.root.is_none() && caller.session.is_none() {
            // Calls belong to sessions.
            self.facts.call_basis = None;
            return self.set_call(Attribution::None);
        }
        let is_here = |client: std::net::IpAddr| client.is_loopback();
        let found = self.sessions().call_of(&FlowClues {
            caller,
            here: self.facts.client_address.is_some_and(is_here),
            target: self.target.as_ref(),
            path: asked.path,
            agent: None,
            server: asked.server,
        });
        self.facts.call_basis = self.has_calls(caller).then_some(NO_CALL);
        self.set_call(found);
    }

    fn has_calls(&self, caller: &Caller) -> bool {
        let root = caller.root.as_ref().or(caller.session.as_ref());
        caller.is_shown() && root.is_some_and(|root| self.sessions().calls().has(root))
    }

    fn set_call(&mut self, found: Attribution) {
        let facts = &mut self.facts;
        let process = facts.process.as_ref().map(|process| process.pid);
        self.left = process.filter(|_| matches!(found, Attribution::Left));
        facts.call_conflict = matches!(found, Attribution::Conflict);
        if let Attribution::Call(Attributed { call, trust, basis }) = found {
            facts.call = Some(call);
            facts.call_trust = trust;
            facts.call_basis = Some(basis.as_str());
        } else {
            facts.call = None;
            facts.call_trust = Trust::default();
            facts.call_basis = facts.call_basis.map(|_| NO_CALL);
        }
    }

    /// Applies the call that an MCP message names, by id or by tool.
    fn agree_with_meta(&mut self, caller: &Caller, mcp: &McpCall) {
        let Some(id) = mcp.tool_use_id.as_deref() else {
            return;
        };
        let named = |call: &crate::identity::ToolCall| call.id.as_deref() == Some(id);
        if let Some(call) = &self.facts.call {
            // Both name the same call: the basis becomes the message.
            let found = if named(call) {
                return self.facts.call_basis = Some(CallBasis::Meta.as_str());
            } else {
                Attribution::Conflict
            };
            return self.set_call(found);
        }
        let root = caller.root.as_ref().or(caller.session.as_ref());
        let root = root.filter(|_| caller.is_shown());
        let sessions = self.sessions();
        let Some(call) = root.and_then(|root| sessions.calls().named(root, id)) else {
            return;
        };
        let same_tool = mcp.tool.as_deref().is_none_or(|tool| {
            let reported = call.tool.as_deref().unwrap_or_default();
            reported.rsplit_once("__").is_some_and(|(_, it)| it == tool)
        });
        self.set_call(if same_tool {
            Attribution::Call(Attributed {
                call,
                trust: Trust::Asserted,
                basis: CallBasis::Meta,
            })
        } else {
            Attribution::Conflict
        });
    }

    /// Compares the call with the subagent and prompt in the agent's own header fields.
    fn agree_with_headers(&mut self) {
        let (Some(call), Some(said)) = (&self.facts.call, &self.facts.said) else {
            return;
        };
        let differs = |said: &Option<Box<str>>, call: &Option<Arc<str>>| {
            said.is_some() && said.as_deref() != call.as_deref()
        };
        if differs(&said.agent, &call.agent) || differs(&said.prompt, &call.prompt) {
            self.set_call(Attribution::Conflict);
        }
    }

    /// Keeps a refusal for the agent whose tool call, or process in the background, caused it.
    pub(super) fn tell_agent(&self, code: Code) {
        let facts = &self.facts;
        let root = facts.root.as_ref().or(facts.session.as_ref());
        let (Some(root), Some(_)) = (root, &self.target) else {
            return;
        };
        let refused = self.refused_for_agent(code);
        let by_agent = facts.category.is_some_and(is_of_agent);
        match (&facts.call, self.left) {
            (Some(call), _) => self.sessions().calls().refused(root, call, refused),
            (None, Some(process)) if !by_agent => {
                self.sessions()
                    .refused_in_background(root, process, refused);
            }
            _ => {}
        }
    }

    /// The report of a refusal of this flow, for its agent.
    pub(super) fn refused_for_agent(&self, code: Code) -> Refused {
        let facts = &self.facts;
        Refused {
            attempt: attempt(facts).into(),
            category: facts.category.unwrap_or(Category::Unknown).as_str(),
            reason: code.as_str(),
            tier: facts.tier.clone(),
            explain: facts.explain().into(),
            count: 1,
        }
    }

    fn sessions(&self) -> Arc<Sessions> {
        self.snapshot().identity.sessions().clone()
    }
}

/// Keeps a refusal for the agent whose tool call caused it, for a repeated refusal that has no flow
/// record.
pub(super) fn tell_again(sessions: &Sessions, caller: &Caller, target: &Target, refused: Refused) {
    let found = sessions.call_of(&FlowClues {
        caller,
        here: true,
        target: Some(target),
        path: None,
        agent: None,
        server: None,
    });
    let root = caller.root.as_ref().or(caller.session.as_ref());
    if let (Attribution::Call(found), Some(root)) = (found, root) {
        sessions.calls().refused(root, &found.call, refused);
    }
}

/// Whether requests of this category come from the agent itself, also while a tool runs.
fn is_of_agent(category: Category) -> bool {
    matches!(
        category,
        Category::Auth | Category::ModelApi | Category::Telemetry | Category::Update
    )
}

/// A description of the attempt for a model: canonical names and words of closed lists only.
fn attempt(facts: &FlowFacts) -> String {
    let host = facts.server_address.as_deref().unwrap_or_default();
    let target = format!("{host}:{}", facts.server_port.unwrap_or_default());
    if facts.protocol == Some("dns") {
        return format!("look-up of the name {host}");
    }
    let is_request = facts.protocol == Some("http") || facts.request_facts.is_some();
    if !is_request {
        return format!("connection to {target}");
    }
    let scheme = if facts.parent.is_some() {
        "https"
    } else {
        "http"
    };
    let method = facts.method.as_deref().filter(|method| {
        method.len() <= 16 && method.bytes().all(|byte| byte.is_ascii_uppercase())
    });
    let method = method.unwrap_or("request");
    let mut text = format!("{method} {scheme}://{target}");
    let request_facts = facts.request_facts.as_deref();
    let service = request_facts.and_then(|request_facts| {
        Some((
            request_facts.service.as_ref()?,
            request_facts.operation.as_ref()?,
        ))
    });
    if let Some((service, operation)) = service {
        let _ = write!(text, " ({service} {operation})");
    }
    text
}
