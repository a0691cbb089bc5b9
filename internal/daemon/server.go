package daemon

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/vswitch/vswitch/api"
	"github.com/vswitch/vswitch/internal/config"
	"github.com/vswitch/vswitch/internal/feature"
	"github.com/vswitch/vswitch/internal/setting"
)

// route is one call of the API. The result of handle is sent as JSON; nil means status 204.
type route struct {
	method, path string
	query        any // a settings struct that describes its parameters; nil: it has none
	handle       func(*http.Request) (any, error)
}

func (m *manager) routes() []route {
	return []route{
		{"GET", "/v1/config", nil, func(*http.Request) (any, error) {
			document, err := ask(m, func() (func() config.Document, error) { return m.document(), nil })
			if err != nil {
				return nil, err
			}
			return m.asConfig(document()), nil
		}},
		{"POST", "/v1/config", nil, func(r *http.Request) (any, error) {
			req, err := feature.Body[api.ApplyConfig](r)
			if err != nil {
				return nil, err
			}
			return m.applyConfig(req)
		}},
		{"POST", "/v1/config/confirm", nil, func(*http.Request) (any, error) { return nil, m.change(m.confirm) }},
		{"POST", "/v1/config/rollback", nil, func(r *http.Request) (any, error) {
			req, err := feature.Body[api.RollbackConfig](r)
			if err != nil {
				return nil, err
			}
			var done api.AppliedConfig
			err = m.changeConfig(func() (err error) { done, err = m.rollback(req); return err })
			return done, err
		}},
		{"GET", "/v1/config/history", nil, func(*http.Request) (any, error) {
			return ask(m, func() ([]api.ConfigChange, error) { return m.describeHistory(), nil })
		}},
		{"GET", "/v1/switch", nil, func(*http.Request) (any, error) {
			return ask(m, func() (api.Switch, error) { return m.describeSwitch(), nil })
		}},
		{"PATCH", "/v1/switch", nil, func(r *http.Request) (any, error) { return tellChange(r, m, m.set) }},
		{"GET", "/v1/ports", nil, func(*http.Request) (any, error) {
			return ask(m, func() ([]api.Port, error) { return m.describeAll(), nil })
		}},
		{"POST", "/v1/ports", nil, func(r *http.Request) (any, error) {
			return tellChange(r, m, m.addPort)
		}},
		{"GET", "/v1/ports/{name}", nil, func(r *http.Request) (any, error) {
			return ask(m, func() (api.Port, error) {
				p, err := m.find(r.PathValue("name"))
				if err != nil {
					return api.Port{}, err
				}
				return m.describe(p), nil
			})
		}},
		{"PATCH", "/v1/ports/{name}", nil, func(r *http.Request) (any, error) {
			return tellChange(r, m, func(req setting.Patch) (api.Port, error) { return m.setPort(r.PathValue("name"), req) })
		}},
		{"DELETE", "/v1/ports/{name}", delPort{}, func(r *http.Request) (any, error) {
			q, err := feature.Query[delPort](r)
			if err != nil {
				return nil, err
			}
			return nil, m.change(func() error { return m.delPort(r.PathValue("name"), q.Force) })
		}},
		{"GET", "/v1/drops", nil, func(*http.Request) (any, error) { return dropReasons(), nil }},
	}
}

// delPort is the query of DELETE /v1/ports/{name}.
type delPort struct {
	Force bool `json:"force" help:"even if a machine is attached"`
}

// ask runs f in a turn and returns its answer.
func ask[T any](m *manager, f func() (T, error)) (answer T, err error) {
	err = m.do(func() (err error) { answer, err = f(); return err })
	return answer, err
}

// tellChange makes a change of the desired state that a request's body asks for.
func tellChange[Req, T any](r *http.Request, m *manager, f func(Req) (T, error)) (any, error) {
	req, err := feature.Body[Req](r)
	if err != nil {
		return nil, err
	}
	var answer T
	err = m.change(func() (err error) { answer, err = f(req); return err })
	return answer, err
}

// addPort is an api.AddPort as read: the kinds decide which settings there are.
type addPort struct {
	Name, Kind string
	NoWait     bool
	MayExist   bool
	settings   setting.Patch
}

func (a *addPort) UnmarshalJSON(b []byte) error {
	if err := json.Unmarshal(b, &a.settings); err != nil {
		return err
	}
	return errors.Join(a.settings.Take("name", &a.Name), a.settings.Take("kind", &a.Kind), a.settings.Take("no_wait", &a.NoWait),
		a.settings.Take("may_exist", &a.MayExist))
}

// maxBody limits a request's body in bytes. The largest sensible one, a port with some
// hundred addresses, is a tenth of it.
const maxBody = 1 << 16

// maxBody is larger for a configuration: ten thousand ports with many settings.
func (rt route) maxBody() int64 {
	if rt.path == "/v1/config" {
		return 16 << 20
	}
	return maxBody
}

func (m *manager) handler() http.Handler {
	mux := http.NewServeMux()
	serve := func(pattern string, query any, serve http.HandlerFunc) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := feature.CheckQuery(r, query); err != nil {
				feature.Refuse(w, err)
				return
			}
			serve(w, r)
		})
	}
	for _, rt := range m.routes() {
		serve(rt.method+" "+rt.path, rt.query, func(w http.ResponseWriter, r *http.Request) {
			r.Body = http.MaxBytesReader(w, r.Body, rt.maxBody())
			defer m.durations.of(rt.method + " " + rt.path).since(time.Now())
			answer, err := rt.handle(r)
			m.answer(w, answer, err)
		})
	}
	for _, h := range m.hosted {
		for _, rt := range h.Routes {
			serve(rt.Method+" "+rt.Path, rt.Query, func(w http.ResponseWriter, r *http.Request) {
				r.Body = http.MaxBytesReader(w, r.Body, maxBody)
				m.serveFeature(h, rt, w, r)
			})
		}
	}
	serve("POST /v1/upgrade", nil, m.serveUpgrade)
	serve("GET /v1/openapi.yaml", nil, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/yaml")
		_, _ = w.Write(api.OpenAPI)
	})
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if allowed := methods(mux, r); allowed != nil {
			w.Header().Set("Allow", strings.Join(allowed, ", "))
			feature.Refuse(w, fail(api.CodeMethod, "there is no %s of %s; it has %s", r.Method, r.URL.Path, strings.Join(allowed, ", ")))
			return
		}
		feature.Refuse(w, fail(api.CodeNotFound, "there is no call %s %s; /v1/openapi.yaml has those there are", r.Method, r.URL.Path))
	})
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-m.restored: // before, a port that is about to be up would look lost
		case <-m.ended:
		case <-r.Context().Done():
		}
		mux.ServeHTTP(w, r)
	})
}

// methods returns the methods that the path of a request has.
func methods(mux *http.ServeMux, r *http.Request) (all []string) {
	for _, method := range []string{"DELETE", "GET", "HEAD", "PATCH", "POST", "PUT"} {
		with := r.Clone(r.Context())
		with.Method = method
		if _, pattern := mux.Handler(with); pattern != "/" {
			all = append(all, method)
		}
	}
	return all
}

// answer sends the result of a call; nil means status 204.
func (m *manager) answer(w http.ResponseWriter, answer any, err error) {
	switch {
	case err != nil:
		feature.Refuse(w, err)
	case answer == nil:
		w.WriteHeader(http.StatusNoContent)
	default:
		m.reply(w, http.StatusOK, answer)
	}
}

func (m *manager) reply(w http.ResponseWriter, status int, answer any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	e := json.NewEncoder(w)
	e.SetEscapeHTML(false) // a frame is A > B
	if err := e.Encode(answer); err != nil {
		m.log.Debug("a client left before its answer", "error", err)
	}
}
