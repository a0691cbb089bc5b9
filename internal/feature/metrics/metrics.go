// Package metrics serves the numbers of the switch to Prometheus: at GET /metrics of the
// control socket, and by TCP at the address of --metrics. It counts nothing itself; a scrape
// reads what the core, the daemon and the features count anyway.
package metrics

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"github.com/vswitch/vswitch/internal/feature"
)

// Settings are the settings of metrics.
type Settings struct {
	Address Address `json:"metrics,omitzero" arg:"ADDRESS:PORT" help:"serve metrics to Prometheus at this address, such as 127.0.0.1:9190, besides the control socket; who can connect can read them"`
}

// Address is an IP address and a TCP port. The zero Address means none.
type Address struct{ netip.AddrPort }

// UnmarshalText implements encoding.TextUnmarshaler.
func (a *Address) UnmarshalText(b []byte) error {
	*a = Address{}
	if len(b) == 0 {
		return nil
	}
	v, err := netip.ParseAddrPort(string(b))
	if err != nil || v.Port() == 0 {
		return fmt.Errorf("%q is not an IP address and a port; write 127.0.0.1:9190 or [::1]:9190", b)
	}
	a.AddrPort = v
	return nil
}

// MarshalText implements encoding.TextMarshaler.
func (a Address) MarshalText() ([]byte, error) {
	if !a.IsValid() {
		return nil, nil
	}
	return a.AddrPort.MarshalText()
}

// Feature describes the metrics.
var Feature = feature.Feature{
	Name:   "metrics",
	Help:   "serves numbers to Prometheus",
	Switch: Settings{},
	New: func(h feature.Host, settings any) (feature.Instance, error) {
		return start(h, settings.(Settings).Address), nil
	},
	Routes: []feature.Route{{
		Method: "GET", Path: "/metrics",
		Help: "The numbers of the switch, for Prometheus", Type: "text/plain",
		Serve: func(i feature.Instance, w http.ResponseWriter, r *http.Request) { i.(*server).page.ServeHTTP(w, r) },
	}},
}

// server is the running feature.
type server struct {
	*collector
	page  http.Handler
	tcp   *http.Server // nil: none, or its address cannot be had now
	retry func()       // cancels the next try to listen; nil: none
}

const (
	// scrapes is how many scrapes run at a time. Others are refused, since each one takes
	// memory for all series.
	scrapes = 4

	// patience is how long a scrape may take. Prometheus itself waits for 10 s by default.
	patience = 9 * time.Second

	// connections is how many connections by TCP there may be. Each takes a file, of which
	// ports need many.
	connections = 8

	// again is the time between tries to listen at an address that cannot be had.
	again = 10 * time.Second
)

func start(h feature.Host, at Address) *server {
	s := &server{collector: newCollector(h)}
	r := prometheus.NewRegistry()
	r.MustRegister(s.collector, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	s.page = promhttp.HandlerFor(r, promhttp.HandlerOpts{
		ErrorLog:            errorLog{h.Log()},
		ErrorHandling:       promhttp.ContinueOnError, // one bad series must not hide the others
		MaxRequestsInFlight: scrapes,
		Timeout:             patience,
		EnableOpenMetrics:   true,
	})
	if at.IsValid() {
		s.listen(at, true)
	}
	return s
}

// errorLog logs what promhttp finds wrong.
type errorLog struct{ *slog.Logger }

func (l errorLog) Println(v ...any) {
	l.Error("metrics are incomplete", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

// listen serves the page at an address. A switch that forwards is worth more than its metrics,
// so an address that cannot be had is logged and tried again.
func (s *server) listen(at Address, first bool) {
	ln, err := net.Listen("tcp", at.String())
	if err != nil {
		if first {
			s.host.Log().Error("metrics are not served by TCP; the address is tried again", "address", at, "every", again, "error", err)
		}
		s.retry = s.host.After(again, func() { s.listen(at, false) })
		return
	}
	s.host.Log().Info("metrics are served", "url", "http://"+at.String()+"/metrics")
	s.retry = nil
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.page)
	tcp := &http.Server{
		Handler:           mux,
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       5 * time.Second,
		WriteTimeout:      2 * patience,
		IdleTimeout:       2 * time.Minute, // above common intervals of scrapes
		MaxHeaderBytes:    1 << 14,
		ErrorLog:          slog.NewLogLogger(s.host.Log().Handler(), slog.LevelDebug),
	}
	s.tcp = tcp
	go func() {
		if err := tcp.Serve(netutil.LimitListener(ln, connections)); !errors.Is(err, http.ErrServerClosed) {
			s.host.Log().Error("metrics are no longer served by TCP", "address", at, "error", err)
		}
	}()
}

// Stop implements feature.Instance.
func (s *server) Stop() {
	if s.retry != nil {
		s.retry()
	}
	if s.tcp != nil {
		s.tcp.Close()
	}
}
