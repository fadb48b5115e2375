package gate

import (
	"bufio"
	"net"
	"net/http"
	"sync/atomic"
)

// meter counts what goes to the caller. It keeps what http.ResponseController reaches for: flush, hijack, deadlines.
type meter struct {
	http.ResponseWriter
	code atomic.Int64
	sent atomic.Int64
}

func (m *meter) Unwrap() http.ResponseWriter { return m.ResponseWriter }

func (m *meter) WriteHeader(code int) {
	if code >= 200 || code == http.StatusSwitchingProtocols {
		m.code.CompareAndSwap(0, int64(code))
	}
	m.ResponseWriter.WriteHeader(code)
}

func (m *meter) Write(b []byte) (int, error) {
	m.code.CompareAndSwap(0, http.StatusOK)
	n, err := m.ResponseWriter.Write(b)
	m.sent.Add(int64(n))
	return n, err
}

// Hijack hands out the caller's connection, metered.
func (m *meter) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	c, rw, err := http.NewResponseController(m.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	m.code.CompareAndSwap(0, http.StatusSwitchingProtocols)
	return meteredConn{c, m}, rw, nil
}

type meteredConn struct {
	net.Conn
	m *meter
}

func (c meteredConn) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.m.sent.Add(int64(n))
	return n, err
}

func (m *meter) wrote() bool { return m.code.Load() != 0 }

func (m *meter) result() (code int, sent int64) { return int(m.code.Load()), m.sent.Load() }
