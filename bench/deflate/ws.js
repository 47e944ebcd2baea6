// ws on Node, compressing at lodger's default level: `ws-deflate.js none|both`, by which directions have context takeover.
const { WebSocketServer } = require('ws');

const none = process.argv[2] === 'none';
const perMessageDeflate = {
  threshold: 256, zlibDeflateOptions: { level: 3 }, serverNoContextTakeover: none, clientNoContextTakeover: none,
};
const server = new WebSocketServer({ host: '127.0.0.1', port: 0, perMessageDeflate });
server.on('listening', () => console.log(`127.0.0.1:${server.address().port}`));
server.on('connection', (socket) => {
  socket.on('error', () => {});
  socket.on('message', (data, isBinary) => socket.send(data, { binary: isBinary }));
});
