package feature

import (
	"bufio"
	"encoding/json"
	"net/http"
	"time"

	"github.com/vswitch/vswitch/api"
)

// lists has a value for each list that is being written: each may have a million stations.
var lists = make(chan struct{}, 2)

// listPatience is how long a client waits for others to have their lists.
const listPatience = 5 * time.Second

// ServeList answers with the list that make returns, as JSON, one element after the other: it must
// not be in memory as text as well. Few lists are made at a time; a client that waits too long is
// refused.
func ServeList[T any](w http.ResponseWriter, r *http.Request, make func() ([]T, error)) {
	late := time.NewTimer(listPatience)
	defer late.Stop()
	select {
	case lists <- struct{}{}:
	case <-r.Context().Done():
		return
	case <-late.C:
		Refuse(w, api.Errorf(api.CodeBusy, "%d other clients read long lists; try again when they have them", cap(lists)))
		return
	}
	defer func() { <-lists }()
	all, err := make()
	if err != nil {
		Refuse(w, err)
		return
	}
	_ = writeList(w, all) // fails if the client left
}

func writeList[T any](w http.ResponseWriter, list []T) error {
	w.Header().Set("Content-Type", "application/json")
	out := bufio.NewWriterSize(w, 32<<10)
	_ = out.WriteByte('[') // Flush returns the first error
	for i := range list {
		if i > 0 {
			_ = out.WriteByte(',')
		}
		b, err := json.Marshal(&list[i])
		if err != nil {
			return err
		}
		if _, err := out.Write(b); err != nil {
			return err // the client left
		}
	}
	_, _ = out.WriteString("]\n")
	return out.Flush()
}
