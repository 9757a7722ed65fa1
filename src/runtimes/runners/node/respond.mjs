/** What `request.respond` makes: a body with a status or headers. Made only there, so that data is never taken for it. */
export class Respond {
  constructor(body, init, headers) {
    this.body = body;
    const isInit = typeof init === 'object' && init !== null;
    this.status = isInit ? init.status : init;
    this.headers = isInit ? init.headers : headers;
  }
}
