// The script of `nginx-njs.conf`: a subrequest to the introspection endpoint, whose answers nginx caches, and what follows from its answer.

// The checks that an answer needs on every request, cached or not.
function isGood(answer) {
    const now = Date.now() / 1000;
    return answer.active === true && (answer.exp === undefined || answer.exp > now) && (answer.nbf === undefined || answer.nbf <= now);
}

function refuse(r) {
    r.headersOut['WWW-Authenticate'] = 'Bearer realm="service"';
    r.return(401);
}

async function authorize(r) {
    if (!r.variables.token) {
        refuse(r);
        return;
    }
    const reply = await r.subrequest('/_introspect');
    if (reply.status !== 200) {
        r.return(reply.status === 504 || reply.status === 502 ? 503 : 502);
        return;
    }
    let answer;
    try {
        answer = JSON.parse(reply.responseText);
    } catch (e) {
        r.return(502);
        return;
    }
    if (!isGood(answer)) {
        refuse(r);
        return;
    }
    r.headersOut['Token-Scope'] = answer.scope;
    r.headersOut['Token-Client-Id'] = answer.client_id;
    r.headersOut['Token-Username'] = answer.username;
    r.headersOut['Token-Sub'] = answer.sub;
    r.return(204);
}

function form_token(r) {
    return encodeURIComponent(r.variables.token);
}

export default { authorize, form_token };
