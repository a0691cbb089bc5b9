package feature

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/vswitch/vswitch/api"
)

func TestWriteList(t *testing.T) {
	for _, list := range [][]map[string]int{nil, {}, {{"a": 1}}, {{"a": 1}, {"b": 2}}, make([]map[string]int, 100000)} {
		w := httptest.NewRecorder()
		if err := writeList(w, list); err != nil {
			t.Error(err)
		}
		want, _ := json.Marshal(append([]map[string]int{}, list...))
		if got := w.Body.Bytes(); !bytes.Equal(got, append(want, '\n')) {
			t.Errorf("%d elements are %.40q, want %.40q", len(list), got, want)
		}
		if typ := w.Header().Get("Content-Type"); typ != "application/json" {
			t.Errorf("the type is %q", typ)
		}
	}
}

// A list waits for others, and not for ever.
func TestFewListsAtATime(t *testing.T) {
	was := lists
	defer func() { lists = was }()
	synctest.Test(t, func(t *testing.T) {
		lists = make(chan struct{}, cap(was)) // of the bubble
		serve := func(ctx context.Context, list func() ([]int, error)) string {
			w := httptest.NewRecorder()
			ServeList(w, httptest.NewRequestWithContext(ctx, "GET", "/", nil), list)
			return w.Body.String()
		}
		one := func() ([]int, error) { return []int{1}, nil }
		gate := make(chan struct{})
		var running sync.WaitGroup
		for range cap(lists) {
			running.Go(func() { serve(t.Context(), func() ([]int, error) { <-gate; return nil, nil }) })
		}
		synctest.Wait()
		running.Go(func() {
			if got := serve(t.Context(), one); got != "[1]\n" {
				t.Errorf("a client that waited is told %s", got)
			}
		})
		time.Sleep(listPatience / 2)
		close(gate)
		running.Wait()

		gate = make(chan struct{})
		for range cap(lists) {
			running.Go(func() { serve(t.Context(), func() ([]int, error) { <-gate; return nil, errors.New("no list") }) })
		}
		synctest.Wait()
		if got := serve(t.Context(), one); !strings.Contains(got, api.CodeBusy) {
			t.Errorf("a client that waited too long is told %s", got)
		}
		left, leave := context.WithCancel(t.Context())
		leave()
		if got := serve(left, one); got != "" {
			t.Errorf("a client that left is told %s", got)
		}
		close(gate)
		running.Wait()
		if got := serve(t.Context(), one); got != "[1]\n" {
			t.Errorf("then a client is told %s", got)
		}
	})
}

// broken is a client that leaves.
type broken struct {
	httptest.ResponseRecorder
	writes int
}

func (b *broken) Write([]byte) (int, error) { b.writes++; return 0, io.ErrClosedPipe }

func TestWriteListEnds(t *testing.T) {
	var b broken
	var w http.ResponseWriter = &b
	if err := writeList(w, make([]int, 1<<20)); !errors.Is(err, io.ErrClosedPipe) || b.writes != 1 {
		t.Errorf("%d writes to a client that left, %v", b.writes, err)
	}
	if err := writeList(httptest.NewRecorder(), []func(){nil}); err == nil {
		t.Error("no error for what JSON does not have")
	}
}
