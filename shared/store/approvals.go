package store

import (
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	mathrand "math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb/types"

	"sallyport/shared/access"
	"sallyport/shared/settings"
)

const (
	// maxView is what a view may be long as JSON, and maxDoc an approval: DynamoDB takes items of 400 KB.
	maxView = 300 << 10
	maxDoc  = 380 << 10
	// tries bounds how often a write starts again because somebody else was first. Each time somebody was, so all get on.
	tries = 16
	// batch is how many items DynamoDB reads at once.
	batch = 100
)

// Approvals is the table of approvals and of what belongs to them; settings.Approvals lists its items. It is safe for
// concurrent use, by any number of processes.
//
// An approval is one item: the document, and beside it what conditions and the list need. Its revision goes up with every
// write, and every write is on the condition that the revision is the one that was read: of two changes at once one is
// made, and the other is made again of what the first left. What the rules of package approval allow once, such as letting a
// request pass, therefore happens once.
type Approvals struct {
	db    *dynamodb.Client
	table string
}

// NewApprovals uses the table of that name, which has the keys and the index of settings.Approvals.
func NewApprovals(db *dynamodb.Client, table string) *Approvals {
	return &Approvals{db: db, table: table}
}

// A Link is a mail link, as it is kept under the hash of its secret.
type Link struct {
	Approval string
	Email    string // whom it was sent to
	Expires  time.Time
	Used     time.Time // zero while it was not
}

type keep struct{ error }

func (k keep) Unwrap() error { return k.error }

// Keep makes Update store what its change made of the approval although the change returns err; Update then returns err
// itself. Keep(nil) is nil.
func Keep(err error) error {
	if err == nil {
		return nil
	}
	return keep{err}
}

// Kept undoes Keep, and says whether it was done: for whoever implements Update.
func Kept(err error) (stored bool, inner error) {
	var k keep
	if errors.As(err, &k) {
		return true, k.error
	}
	return false, err
}

// Open returns the approval that want's principal already has for want's request, when joins says that it is joined; else it
// opens want, with what reviewers are shown. Of many at once for one request one opens, and the others get what it opened.
// An error of kind access.Denied means that it cannot be shown whole.
func (s *Approvals) Open(ctx context.Context, want access.Approval, view access.View, joins func(access.Approval) bool) (got access.Approval, opened bool, err error) {
	item, err := s.item(want, 1)
	if err != nil {
		return want, false, err
	}
	shown, err := viewItem(want, view)
	if err != nil {
		return want, false, err
	}
	pointer := key("ask#"+want.Principal.Key()+"#"+want.Digest, "open")
	for i := range tries {
		if err := pause(ctx, i); err != nil {
			return want, false, err
		}
		old, err := s.get(ctx, pointer)
		if err != nil {
			return want, false, err
		}
		id := text(old, "approval")
		if id != "" {
			a, err := s.Get(ctx, id)
			switch {
			case access.KindOf(err) == access.NotFound: // its time to live came first
			case err != nil:
				return want, false, err
			case id == want.ID: // the write that seemed to be lost was not
				return a, true, nil
			case joins(a):
				return a, false, nil
			}
		}
		point := key("ask#"+want.Principal.Key()+"#"+want.Digest, "open")
		point["approval"] = str(want.ID)
		point[settings.Approvals.TTL] = item[settings.Approvals.TTL]
		unmoved := &types.Put{TableName: &s.table, Item: point, ConditionExpression: aws.String("attribute_not_exists(pk)")}
		if id != "" {
			unmoved.ConditionExpression = aws.String("approval = :old")
			unmoved.ExpressionAttributeValues = map[string]types.AttributeValue{":old": str(id)}
		}
		_, err = s.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{
			{Put: unmoved},
			{Put: &types.Put{TableName: &s.table, Item: item, ConditionExpression: aws.String("attribute_not_exists(pk)")}},
			{Put: &types.Put{TableName: &s.table, Item: shown, ConditionExpression: aws.String("attribute_not_exists(pk)")}},
		}})
		switch {
		case err == nil:
			a, err := document(item)
			return a, true, err
		case !raced(err):
			return want, false, unsure("opening an approval", err)
		}
	}
	return want, false, busy()
}

// Get finds an approval by its id.
func (s *Approvals) Get(ctx context.Context, id string) (access.Approval, error) {
	item, err := s.get(ctx, key("approval#"+id, "approval"))
	if err != nil {
		return access.Approval{}, err
	}
	if len(item) == 0 {
		return access.Approval{}, missing(id)
	}
	return document(item)
}

// GetAll finds approvals by their ids; those that do not exist are left out.
func (s *Approvals) GetAll(ctx context.Context, ids []string) (map[string]access.Approval, error) {
	found := make(map[string]access.Approval, len(ids))
	seen := make(map[string]bool, len(ids))
	var keys []map[string]types.AttributeValue
	for _, id := range ids {
		if !seen[id] {
			seen[id] = true
			keys = append(keys, key("approval#"+id, "approval"))
		}
	}
	for i := 0; len(keys) > 0; i++ {
		if i > 0 && i%tries == 0 {
			return nil, busy()
		}
		now := keys[:min(len(keys), batch)]
		out, err := s.db.BatchGetItem(ctx, &dynamodb.BatchGetItemInput{RequestItems: map[string]types.KeysAndAttributes{
			s.table: {Keys: now, ConsistentRead: aws.Bool(true)}}})
		if err != nil {
			return nil, unavailable("reading approvals", err)
		}
		for _, item := range out.Responses[s.table] {
			a, err := document(item)
			if err != nil {
				return nil, err
			}
			found[a.ID] = a
		}
		// What DynamoDB did not get to, it is asked for again.
		left := out.UnprocessedKeys[s.table].Keys
		if keys = append(left, keys[len(now):]...); len(left) > 0 {
			if err := pause(ctx, i+1); err != nil {
				return nil, err
			}
		}
	}
	return found, nil
}

// View is what reviewers of an approval are shown.
func (s *Approvals) View(ctx context.Context, id string) (access.View, error) {
	var v access.View
	item, err := s.get(ctx, key("approval#"+id, "view"))
	if err != nil {
		return v, err
	}
	b, ok := item["view"].(*types.AttributeValueMemberB)
	if !ok {
		return v, missing(id)
	}
	z, err := gzip.NewReader(bytes.NewReader(b.Value))
	if err != nil {
		return v, fmt.Errorf("decoding the view of approval %q: %w", id, err)
	}
	if err := json.NewDecoder(io.LimitReader(z, maxView)).Decode(&v); err != nil {
		return v, fmt.Errorf("decoding the view of approval %q: %w", id, err)
	}
	return v, nil
}

// Find is the approval that a principal's request of that digest had last.
func (s *Approvals) Find(ctx context.Context, principalKey, digest string) (access.Approval, bool, error) {
	pointer, err := s.get(ctx, key("ask#"+principalKey+"#"+digest, "open"))
	if err != nil || len(pointer) == 0 {
		return access.Approval{}, false, err
	}
	a, err := s.Get(ctx, text(pointer, "approval"))
	if access.KindOf(err) == access.NotFound {
		return a, false, nil
	}
	return a, err == nil, err
}

// Update changes an approval, and returns what is stored then. When somebody else changed it meanwhile, change is called
// again with what they left, so it must do nothing but change the approval. An error of change is returned and nothing is
// stored, unless it was made by Keep. What change leaves as it was is not written.
func (s *Approvals) Update(ctx context.Context, id string, change func(*access.Approval) error) (access.Approval, error) {
	mine := rand.Text() // says which write was ours, when its answer was lost and the SDK sent it again
	for i := range tries {
		if err := pause(ctx, i); err != nil {
			return access.Approval{}, err
		}
		item, err := s.get(ctx, key("approval#"+id, "approval"))
		if err != nil {
			return access.Approval{}, err
		}
		if len(item) == 0 {
			return access.Approval{}, missing(id)
		}
		old, err := document(item)
		if err != nil {
			return old, err
		}
		a, _ := document(item) // shares no memory with old
		stored, refused := Kept(change(&a))
		if refused != nil && !stored {
			return old, refused
		}
		rev, err := strconv.ParseInt(number(item, "rev"), 10, 64)
		if err != nil {
			return old, fmt.Errorf("approval item's rev: %w", err)
		}
		next, err := s.item(a, rev+1)
		if err != nil {
			return old, err
		}
		if text(next, "approval") == text(item, "approval") {
			return old, refused
		}
		next["write"] = str(mine)
		err = s.write(ctx, old, a, next, rev)
		if err == nil {
			return answer(next, refused)
		}
		if !raced(err) {
			return old, unsure("changing an approval", err)
		}
		// Ours may be the write that was first.
		item, err = s.get(ctx, key("approval#"+id, "approval"))
		if err != nil {
			return old, err
		}
		if text(item, "write") == mine {
			return answer(item, refused)
		}
	}
	return access.Approval{}, busy()
}

func answer(item map[string]types.AttributeValue, refused error) (access.Approval, error) {
	a, err := document(item)
	if err != nil {
		return a, err
	}
	return a, refused
}

// write replaces an approval's item, on the condition of its revision. A grant is pointed at by the same transaction that makes
// it one, and no more by the one that ends it: so whoever looks for grants finds all there are.
func (s *Approvals) write(ctx context.Context, old, a access.Approval, item map[string]types.AttributeValue, rev int64) error {
	put := &types.Put{TableName: &s.table, Item: item, ConditionExpression: aws.String("rev = :rev"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":rev": count(rev)}}
	was, is := old.State == access.StateGranted, a.State == access.StateGranted
	if was == is {
		_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: put.TableName, Item: put.Item, ConditionExpression: put.ConditionExpression,
			ExpressionAttributeValues: put.ExpressionAttributeValues})
		return err
	}
	at := key("grants#"+a.Principal.Key()+"#"+a.Cluster, a.ID)
	var pointer types.TransactWriteItem
	if is {
		at[settings.Approvals.TTL] = seconds(a.Until.Add(24 * time.Hour))
		pointer.Put = &types.Put{TableName: &s.table, Item: at, ConditionExpression: aws.String("attribute_not_exists(pk)")}
	} else {
		pointer.Delete = &types.Delete{TableName: &s.table, Key: at}
	}
	_, err := s.db.TransactWriteItems(ctx, &dynamodb.TransactWriteItemsInput{TransactItems: []types.TransactWriteItem{pointer, {Put: put}}})
	return err
}

// Granted are the approvals that are grants of a scope to a principal on a cluster. Some may be over: whoever uses one looks
// at the time.
func (s *Approvals) Granted(ctx context.Context, principalKey, cluster string) ([]access.Approval, error) {
	var ids []string
	pages := dynamodb.NewQueryPaginator(s.db, &dynamodb.QueryInput{
		TableName: &s.table, ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("pk = :pk"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": str("grants#" + principalKey + "#" + cluster)},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, unavailable("reading grants", err)
		}
		for _, item := range page.Items {
			ids = append(ids, text(item, settings.Approvals.SortKey))
		}
	}
	all, err := s.GetAll(ctx, ids)
	if err != nil {
		return nil, err
	}
	var grants []access.Approval
	for _, id := range ids {
		if a, ok := all[id]; ok && a.State == access.StateGranted {
			grants = append(grants, a)
		}
	}
	return grants, nil
}

// List are approvals that are pending, or that are not any more, newest first, opened before a time; the zero time means
// all. The list may lag behind by the moment an index takes, and whoever shows it looks at the times.
func (s *Approvals) List(ctx context.Context, pending bool, limit int, before time.Time) ([]access.Approval, error) {
	in := &dynamodb.QueryInput{
		TableName: &s.table, IndexName: &settings.Approvals.Index.Name, ScanIndexForward: aws.Bool(false), Limit: aws.Int32(int32(max(1, min(limit, 1000)))),
		KeyConditionExpression:    aws.String("#list = :list"),
		ExpressionAttributeNames:  map[string]string{"#list": settings.Approvals.Index.PartitionKey},
		ExpressionAttributeValues: map[string]types.AttributeValue{":list": str(listOf(pending))},
	}
	if !before.IsZero() {
		in.KeyConditionExpression = aws.String("#list = :list AND #opened < :before")
		in.ExpressionAttributeNames["#opened"] = settings.Approvals.Index.SortKey
		in.ExpressionAttributeValues[":before"] = str(before.UTC().Format(precise))
	}
	var found []access.Approval
	pages := dynamodb.NewQueryPaginator(s.db, in)
	for pages.HasMorePages() && len(found) < limit {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, unavailable("listing approvals", err)
		}
		for _, item := range page.Items {
			a, err := document(item)
			if err != nil {
				return nil, err
			}
			found = append(found, a)
		}
	}
	return found[:min(limit, len(found))], nil
}

// PutTask keeps the task token by which the workflow of an approval goes on; that of a later execution takes its place.
func (s *Approvals) PutTask(ctx context.Context, id, token string) error {
	return s.set(ctx, key("task#"+id, "token"), "token", token, time.Now().Add(7*24*time.Hour))
}

// Task is the task token of an approval, if there is one.
func (s *Approvals) Task(ctx context.Context, id string) (string, bool, error) {
	item, err := s.get(ctx, key("task#"+id, "token"))
	return text(item, "token"), len(item) > 0, err
}

// PutLink keeps a mail link by the hash of its secret.
func (s *Approvals) PutLink(ctx context.Context, hash, approval, email string, expires time.Time) error {
	item := key("link#"+hash, "link")
	item["approval"], item["email"], item["expires"] = str(approval), str(email), millis(expires)
	item[settings.Approvals.TTL] = seconds(expires.Add(kept)) // so that one that comes late is told so
	_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: item, ConditionExpression: aws.String("attribute_not_exists(pk) OR (approval = :approval AND email = :email)"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":approval": str(approval), ":email": str(email)}})
	if raced(err) {
		return access.Errorf(access.Conflict, "the link is another's")
	}
	return lost("keeping a link", err)
}

// Link finds a mail link by the hash of its secret. It may have been used, or be over.
func (s *Approvals) Link(ctx context.Context, hash string) (Link, bool, error) {
	item, err := s.get(ctx, key("link#"+hash, "link"))
	if err != nil || len(item) == 0 {
		return Link{}, false, err
	}
	l := Link{Approval: text(item, "approval"), Email: text(item, "email")}
	if l.Expires, err = instant(item, "expires"); err != nil {
		return l, false, err
	}
	if item["used"] != nil {
		l.Used, err = instant(item, "used")
	}
	return l, err == nil, err
}

// UseLink uses a mail link up. The error says that it was used before (access.Conflict), is over (access.Denied), or is none
// (access.NotFound).
func (s *Approvals) UseLink(ctx context.Context, hash string, now time.Time) error {
	_, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.table, Key: key("link#"+hash, "link"),
		UpdateExpression:         aws.String("SET #used = :now"),
		ConditionExpression:      aws.String("attribute_exists(pk) AND attribute_not_exists(#used) AND #expires > :now"),
		ExpressionAttributeNames: map[string]string{"#used": "used", "#expires": "expires"},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":now": millis(now)},
	})
	if !raced(err) {
		return lost("using a link", err)
	}
	l, ok, err := s.Link(ctx, hash)
	switch {
	case err != nil:
		return err
	case !ok:
		return access.Errorf(access.NotFound, "there is no such link")
	}
	if err := l.Spent(now); err != nil {
		return err
	}
	return busy()
}

// Spent says why a link cannot be used at a time; nil when it can.
func (l Link) Spent(now time.Time) error {
	switch {
	case !l.Used.IsZero():
		return access.Errorf(access.Conflict, "the link was used at %s; each link works once", l.Used.Format(time.RFC3339))
	case now.UnixMilli() >= l.Expires.UnixMilli():
		return access.Errorf(access.Denied, "the link ended at %s, with the question it is about", l.Expires.Format(time.RFC3339))
	}
	return nil
}

// PutSent keeps where the message about an approval is in a channel, for it to be changed there; a later message takes an
// earlier one's place.
func (s *Approvals) PutSent(ctx context.Context, id, channel, ref string) error {
	return s.set(ctx, key("sent#"+id, channel), "ref", ref, time.Now().Add(kept))
}

// Sent are the messages about an approval, by channel.
func (s *Approvals) Sent(ctx context.Context, id string) (map[string]string, error) {
	sent := map[string]string{}
	pages := dynamodb.NewQueryPaginator(s.db, &dynamodb.QueryInput{
		TableName: &s.table, ConsistentRead: aws.Bool(true), KeyConditionExpression: aws.String("pk = :pk"),
		ExpressionAttributeValues: map[string]types.AttributeValue{":pk": str("sent#" + id)},
	})
	for pages.HasMorePages() {
		page, err := pages.NextPage(ctx)
		if err != nil {
			return nil, unavailable("reading what was sent", err)
		}
		for _, item := range page.Items {
			sent[text(item, settings.Approvals.SortKey)] = text(item, "ref")
		}
	}
	return sent, nil
}

// Limit counts one for a key in the window that began at a time, unless that would be more than limit: then the error is of
// kind access.Limited.
func (s *Approvals) Limit(ctx context.Context, name string, window time.Time, limit int) error {
	_, err := s.db.UpdateItem(ctx, &dynamodb.UpdateItemInput{
		TableName: &s.table, Key: key("limit#"+name, window.UTC().Format(sortable)),
		UpdateExpression:         aws.String("SET #ttl = :ttl ADD #n :one"),
		ConditionExpression:      aws.String("attribute_not_exists(#n) OR #n < :limit"),
		ExpressionAttributeNames: map[string]string{"#n": "n", "#ttl": settings.Approvals.TTL},
		ExpressionAttributeValues: map[string]types.AttributeValue{
			":one": count(1), ":limit": count(int64(limit)), ":ttl": seconds(window.Add(48 * time.Hour))},
	})
	if raced(err) {
		return Full(limit)
	}
	return lost("counting against a limit", err)
}

// Full is the error of Limit.
func Full(limit int) error {
	return access.Errorf(access.Limited, "%d at a time are the limit, and that many were; ask again in a minute", limit).After(time.Minute)
}

// Once is true for the first caller with a key. It is remembered until a time at least.
func (s *Approvals) Once(ctx context.Context, name string, until time.Time) (first bool, err error) {
	mine := rand.Text()
	item := key("once#"+name, "once")
	item["write"], item[settings.Approvals.TTL] = str(mine), seconds(until.Add(time.Hour))
	_, err = s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: item, ConditionExpression: aws.String("attribute_not_exists(pk)")})
	if !raced(err) {
		return err == nil, lost("keeping what happens once", err)
	}
	old, err := s.get(ctx, key("once#"+name, "once"))
	return text(old, "write") == mine, err
}

// PutKnown keeps which e-mail address a subject of an issuer has proven to have.
func (s *Approvals) PutKnown(ctx context.Context, issuer, subject, email string) error {
	return s.set(ctx, known(issuer, subject), "email", strings.ToLower(email), time.Now().Add(365*24*time.Hour))
}

// Known is the e-mail address that a subject of an issuer has proven to have.
func (s *Approvals) Known(ctx context.Context, issuer, subject string) (email string, ok bool, err error) {
	item, err := s.get(ctx, known(issuer, subject))
	return text(item, "email"), len(item) > 0, err
}

// known is hashed, for a subject may hold a #.
func known(issuer, subject string) map[string]types.AttributeValue {
	return key("known#"+access.Digest(issuer, subject), "person")
}

// set keeps one word in an item of its own, unless it is there already.
func (s *Approvals) set(ctx context.Context, item map[string]types.AttributeValue, name, value string, until time.Time) error {
	item[name], item[settings.Approvals.TTL] = str(value), seconds(until)
	_, err := s.db.PutItem(ctx, &dynamodb.PutItemInput{TableName: &s.table, Item: item,
		ConditionExpression:       aws.String("attribute_not_exists(pk) OR #name <> :value"),
		ExpressionAttributeNames:  map[string]string{"#name": name},
		ExpressionAttributeValues: map[string]types.AttributeValue{":value": str(value)}})
	if raced(err) {
		return nil
	}
	return lost("writing "+name, err)
}

func (s *Approvals) get(ctx context.Context, k map[string]types.AttributeValue) (map[string]types.AttributeValue, error) {
	return get(ctx, s.db, s.table, k, "reading an approval")
}

// item is an approval's item: the document, and what conditions, the list and housekeeping need beside it.
func (s *Approvals) item(a access.Approval, rev int64) (map[string]types.AttributeValue, error) {
	doc, err := compact(a)
	if err != nil {
		return nil, fmt.Errorf("encoding approval %s: %w", a.ID, err)
	}
	if len(doc) > maxDoc {
		return nil, unshown(len(doc), maxDoc)
	}
	over := a.Expires
	for _, t := range []time.Time{a.Until, a.Ended} {
		if t.After(over) {
			over = t
		}
	}
	item := key("approval#"+a.ID, "approval")
	item["approval"], item["state"], item["rev"] = str(string(doc)), str(string(a.State)), count(rev)
	item[settings.Approvals.Index.PartitionKey] = str(listOf(a.State == access.StatePending))
	item[settings.Approvals.Index.SortKey] = str(a.Opened.UTC().Format(precise))
	item[settings.Approvals.TTL] = seconds(over.Add(kept))
	return item, nil
}

func viewItem(a access.Approval, v access.View) (map[string]types.AttributeValue, error) {
	b, err := compact(v)
	if err != nil {
		return nil, fmt.Errorf("encoding the view of approval %s: %w", a.ID, err)
	}
	if len(b) > maxView {
		return nil, unshown(len(b), maxView)
	}
	var z bytes.Buffer
	w := gzip.NewWriter(&z)
	_, _ = w.Write(b) // into memory
	_ = w.Close()
	item := key("approval#"+a.ID, "view")
	item["view"] = &types.AttributeValueMemberB{Value: z.Bytes()}
	item[settings.Approvals.TTL] = seconds(a.Expires.Add(kept + 31*24*time.Hour)) // not before the approval's own, which may be a grant
	return item, nil
}

func document(item map[string]types.AttributeValue) (access.Approval, error) {
	var a access.Approval
	if err := json.Unmarshal([]byte(text(item, "approval")), &a); err != nil {
		return a, fmt.Errorf("decoding an approval: %w", err)
	}
	return a, nil
}

// compact is JSON without HTML's escapes, which would make six bytes of one that a reviewer is shown.
func compact(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimRight(b.Bytes(), "\n"), nil
}

// precise is like sortable, and fine enough that no two approvals of a page's edge are alike.
const precise = "2006-01-02T15:04:05.000000000Z"

func listOf(pending bool) string {
	if pending {
		return "pending"
	}
	return "ended"
}

func missing(id string) error { return access.Errorf(access.NotFound, "there is no approval %q", id) }

func unshown(is, most int) error {
	return access.Errorf(access.Denied, "the request cannot be shown whole (%d bytes, %d are the limit), so nobody can approve it", is, most)
}

func busy() error {
	return access.Errorf(access.Unavailable, "too many change this approval at once; nothing was done, ask again").After(time.Second)
}

// pause waits before the i-th try, longer each time and never two callers alike; not before the first.
func pause(ctx context.Context, i int) error {
	if i == 0 {
		return nil
	}
	t := time.NewTimer(mathrand.N(min(5*time.Millisecond<<i, 400*time.Millisecond))) //nolint:gosec // spreads callers out, hides nothing
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return unavailable("waiting for others", ctx.Err())
	}
}

func str(s string) types.AttributeValue { return &types.AttributeValueMemberS{Value: s} }

func count(n int64) types.AttributeValue {
	return &types.AttributeValueMemberN{Value: strconv.FormatInt(n, 10)}
}

func number(item map[string]types.AttributeValue, name string) string {
	if v, ok := item[name].(*types.AttributeValueMemberN); ok {
		return v.Value
	}
	return ""
}
