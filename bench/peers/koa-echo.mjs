// A bare Koa echo: what an HTTP server in the same Node costs that reads a JSON body and sends it back.
import getRawBody from 'raw-body';
import Koa from 'koa';

const app = new Koa();
app.use(async (ctx) => {
  const body = await getRawBody(ctx.req, { length: ctx.get('content-length') || null, limit: '10mb' });
  ctx.body = JSON.parse(body.toString('utf8'));
});
const server = app.listen(Number(process.argv[2] ?? 0), '127.0.0.1', () => {
  console.log(`listening on ${server.address().port}`);
});
