// The echo for functions-framework, which has parsed the body before it calls.
const functions = require('@google-cloud/functions-framework');

functions.http('echo', (request, response) => {
  response.json(request.body);
});
