// Package metrics serves the numbers of the switch to Prometheus: at GET /metrics of the
// control socket, and by TCP at the address of --metrics. It counts nothing itself; a scrape
// reads what the core, the daemon and the features count anyway.
package metrics

import (
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/httpd"
)

// Settings are the settings of metrics.
type Settings struct {
	Address httpd.Address `json:"metrics,omitzero" arg:"ADDRESS:PORT" help:"serve metrics to Prometheus at this address, such as 127.0.0.1:9190, besides the control socket; who can connect can read them"`
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
	page http.Handler
	tcp  httpd.Server
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
)

func start(h feature.Host, at httpd.Address) *server {
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
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", s.page)
	s.tcp = httpd.Server{
		What: "metrics", Path: "/metrics", Handler: mux, Connections: connections, AnswerTime: 2 * patience,
		Log: h.Log(), After: h.After,
	}
	s.tcp.Start(at)
	return s
}

// errorLog logs what promhttp finds wrong.
type errorLog struct{ *slog.Logger }

func (l errorLog) Println(v ...any) {
	l.Error("metrics are incomplete", "error", strings.TrimSpace(fmt.Sprintln(v...)))
}

// Set implements feature.Settable: an address that cannot be had is refused.
func (s *server) Set(settings any) error { return s.tcp.Set(settings.(Settings).Address) }

// Stop implements feature.Instance.
func (s *server) Stop() { s.tcp.Stop() }
