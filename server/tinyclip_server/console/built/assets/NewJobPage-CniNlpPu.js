const __vite__mapDeps=(i,m=__vite__mapDeps,d=(m.f||(m.f=["assets/SpecEditor-Ce2dgKAw.js","assets/rolldown-runtime-WkwZ5CU-.js","assets/shared-D8_hd3dt.js","assets/browser-DF48D-rS.js","assets/fields-B_uknaxO.js"])))=>i.map(i=>d[i]);
import{n as e}from"./rolldown-runtime-WkwZ5CU-.js";import{A as t,F as n,Fn as r,Gt as i,H as a,Hn as o,I as s,Jt as c,Kt as l,L as u,Lt as d,Mn as f,P as p,Qn as m,R as h,Un as g,Ut as _,V as v,Wn as y,Wt as ee,X as te,Yt as ne,Z as b,_n as x,_t as re,ai as ie,c as ae,f as S,g as C,j as oe,l as w,m as T,mr as se,nt as ce,ot as E,q as D,qt as le,r as ue,st as de,tn as O,tt as k,v as fe,vn as pe,vt as A,y as j}from"./shared-D8_hd3dt.js";import{r as me}from"./useJob-D9GIcm0M.js";import{a as he,c as ge,i as _e,l as M,o as N,r as ve,s as ye,t as P,u as F}from"./browser-DF48D-rS.js";import{t as I}from"./Grid-D4FhPb7Z.js";import{t as be}from"./Skeleton-CvPTpbvb.js";import{t as xe}from"./scopes-CqOMuEVv.js";import{i as Se,o as Ce,s as we,t as Te}from"./fields-B_uknaxO.js";import{t as Ee}from"./Progress-C83fk0jK.js";var L=e(ie(),1);function De(e,t,n={leading:!1}){let[r,i]=(0,L.useState)(e),a=(0,L.useRef)(!1),o=(0,L.useRef)(null),s=(0,L.useRef)(!1),c=(0,L.useRef)(e);c.current=e;let l=(0,L.useCallback)(()=>{window.clearTimeout(o.current),o.current=null},[]),u=(0,L.useCallback)(()=>{l(),s.current=!1},[]),d=(0,L.useCallback)(()=>{o.current&&(u(),s.current=!1,i(c.current))},[]);return(0,L.useEffect)(()=>{a.current&&(l(),!s.current&&n.leading?(s.current=!0,i(e),o.current=window.setTimeout(()=>{s.current=!1},t)):o.current=window.setTimeout(()=>{s.current=!1,i(e)},t))},[e,n.leading,t]),(0,L.useEffect)(()=>(a.current=!0,u),[]),[r,u,{cancel:u,flush:d}]}var Oe=b(`outline`,`folder`,`Folder`,[[`path`,{d:`M5 4h4l3 3h7a2 2 0 0 1 2 2v8a2 2 0 0 1 -2 2h-14a2 2 0 0 1 -2 -2v-11a2 2 0 0 1 2 -2`,key:`svg-0`}]]),ke=b(`outline`,`restore`,`Restore`,[[`path`,{d:`M3.06 13a9 9 0 1 0 .49 -4.087`,key:`svg-0`}],[`path`,{d:`M3 4.001v5h5`,key:`svg-1`}],[`path`,{d:`M11 12a1 1 0 1 0 2 0a1 1 0 1 0 -2 0`,key:`svg-2`}]]),Ae=b(`outline`,`send`,`Send`,[[`path`,{d:`M10 14l11 -11`,key:`svg-0`}],[`path`,{d:`M21 3l-6.5 18a.55 .55 0 0 1 -1 0l-3.5 -7l-7 -3.5a.55 .55 0 0 1 0 -1l18 -6.5`,key:`svg-1`}]]),je=[`shards`,`dataset`,`samples`,`captions`,`image_key`,`caption_key`,`languages`,`distinct_key`,`holdout`];function R(e,t){let n=P(e),r=n.getIn([`data`,`train`]);if(N(r)&&r.flow!==!0&&r.items.length>0)return Me(e,r,`dataset: ${t}`);if(N(r))for(let e of je)r.delete(e);return n.setIn([`data`,`train`,`dataset`],t),n.toString({lineWidth:130})}function Me(e,t,n){let r=t.items.filter(e=>M(e.key)&&je.includes(String(e.key.value))),i=` `.repeat(Fe(e,Pe(t.items[0]))),a=e;for(let t of r.toReversed()){let[n,r]=Ne(e,t);a=a.slice(0,n)+a.slice(r)}let o=Ne(e,r[0]??t.items[0])[0];return`${a.slice(0,o)}${i}${n}\n${a.slice(o)}`}function Ne(e,t){let n=e.lastIndexOf(`
`,Pe(t)-1)+1,r=t.value?.range?.[1]??t.key.range[1],i=n+e.slice(n,r).trimEnd().length,a=e.indexOf(`
`,i);return[n,a===-1?e.length:a+1]}function Pe(e){return e.key.range[0]}function Fe(e,t){return t-(e.lastIndexOf(`
`,t-1)+1)}function Ie(e,t,n){let r=P(e),i=r.getIn(t,!0);return M(i)&&i.range!=null?e.slice(0,i.range[0])+n+e.slice(i.range[1]):(r.setIn(t,n),r.toString({lineWidth:130}))}var Le=`/path/to/TinyCLIP/examples`,z=[{text:Le,label:`Folder of the examples of a clone of TinyCLIP`,example:`/home/you/TinyCLIP/examples`},{text:`/path/to/photos`,label:`Folder of the photos`,example:`/data/photos`},{text:`s3://YOUR-BUCKET`,label:`Bucket or folder of the shards`,example:`s3://my-bucket`}];function B(e,t,n){return e.replaceAll(t,()=>n.trim().replace(/\/+$/,``))}var Re=100;function ze(e){let t=new ve(e);return _e(t,{Collection(e,t,n){let r=n.length<=1,i=F(t)&&t.items.some(N);!r&&!i&&V(t)&&(t.flow=!0)}}),t.toString({lineWidth:130,flowCollectionPadding:!1})}function V(e){return he(e)?(N(e)?e.items.map(e=>e.value):e.items).every(e=>e===null||M(e)||V(e))&&JSON.stringify(e.toJSON()).length<=Re:M(e)}var H=`tinyclip.draft.`;function U(e){try{return sessionStorage.getItem(H+e)}catch{return null}}function W(e,t){try{t===null?sessionStorage.removeItem(H+e):sessionStorage.setItem(H+e,t)}catch{}}function Be(e,t,n){let r=Ve(t),i=r===null?e:B(e,Le,r),a=n[0];return z.some(e=>i.includes(`shards: ${e.text}`))&&a!==void 0?R(i,`${a}@latest`):i}function Ve(e){for(let{name:t,spec:n}of e){let e=t.startsWith(`emoji/`)?n.match(/(?:\s|:|["'])(\/[^\n"']*)\/emoji\/data\//)?.[1]:void 0;if(e!==void 0)return e}return null}var G=[{name:`half`,label:`Half`,description:`Half of the teacher's weights, 1000 steps. The example with emoji: minutes on two CPU cores.`,text:`# Half of a CLIP, from the emoji of a clone of TinyCLIP: a student with half of the weights in its teacher's blocks.
#
# The stage cuts the student out of the teacher: the attention heads, MLP units and channels that the embeddings depend on most,
# fitted to the teacher (weight inheritance). Then it trains the student to have the teacher's embeddings.
name: emoji-half

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # or hf-hub:ORG/NAME, registry:NAME@ALIAS, an architecture

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: half
    inherit: auto                    # finds the sizes; with inherit: manual and student: {…} they are yours
    prune: {target_sparsity: 0.5}
    train: {steps: 1000}

objective: {feature_mimicry: 1}      # add affinity: 1 to mimic the similarities of images and texts as well
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: 5.0e-4, warmup_steps: 50}
batch_size: 64
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 200, keep: 2}
seed: 0
`},{name:`quarter`,label:`Quarter`,description:`A quarter of the teacher's weights, selected by importance, 400 steps.`,text:`# A quarter of a CLIP whose shape follows from its teacher: 25% of the weights in the blocks of a ViT teacher.
#
# Before the first step, the channels, heads and MLP units that the embeddings depend on least are removed, counted per
# parameter, and what remains is fitted to the teacher. Sizes are those of attention and MLPs, the parts of a model's blocks;
# embeddings shrink with the channels.
name: emoji-quarter

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # a transformer: a ResNet has no heads

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: quarter
    inherit: auto                    # finds the sizes; with inherit: manual and student: {…} they are yours
    prune: {target_sparsity: 0.75}   
    train: {steps: 400}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: 1.0e-3, warmup_steps: 20}
batch_size: 128
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 50, keep: 2}
seed: 0
`},{name:`automatic`,label:`Automatic`,description:`Shape and learning rate are found while the student trains.`,text:`# A quarter of a CLIP whose shape and learning rate are found: masks are learned while the weights are frozen, until the prune step.
#
# Then everything that the masks close is removed, and what remains is trained. Sizes are those of attention and MLPs, the parts of a model's
# blocks; embeddings shrink with the channels. The learning rate is the largest one that keeps what was inherited.
name: emoji-automatic

teacher:
  model: local-dir:/path/to/TinyCLIP/examples/emoji/teachers/vit    # a transformer: a ResNet has no heads

data:
  train:
    shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
    caption_key: json.captions       # six captions an image; one is drawn each time
    distinct_key: json.label         # two drawings of one concept are never in one batch, as each other's negatives
    holdout: 0.1                     # a tenth of the images is kept for evaluation
    augment: {crop_scale: [0.9, 1.0], degrees: 12, translate: 0.08, scale: [0.85, 1.15], color_jitter: 0.3, gray: 0.1}
  shuffle: 10000                     # more than the number of images: every epoch has a new order

evaluation:
  tasks:
    # A style that training never sees.
    - name: style-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    - name: style-group
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      classes: /path/to/TinyCLIP/examples/emoji/data/groups.txt
      templates: ["an emoji from the {} category"]
      label_key: json.group
    - {name: style-retrieval, kind: retrieval, shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz}
    # The same style, only the concepts that are in no training image.
    - name: concept-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/val-000000.tar.gz
      where: {seen_concept: false}
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup
    # New images in the styles of training.
    - name: picture-subgroup
      kind: zero_shot
      shards: /path/to/TinyCLIP/examples/emoji/data/train-{000000..000003}.tar.gz
      subset: holdout
      classes: /path/to/TinyCLIP/examples/emoji/data/subgroups.txt
      templates: ["an emoji of a {}"]
      label_key: json.subgroup

stages:
  - name: quarter
    inherit: auto
    prune: {target_sparsity: 0.75, search: frozen, prune_step: 320, sparsity_warmup: 100}    # search: importance needs no masks
    train: {steps: 600}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}    # null: the teacher's own
optimizer: {lr: auto, warmup_steps: 20}      # tested before the first step of the stage
batch_size: 128
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 50, keep: 2}
seed: 0
`},{name:`photos`,label:`Photos`,description:`Photos with captions in a WebDataset of yours, and sizes that you choose.`,text:`# Half of a model of photos: any WebDataset of KEY.jpg, KEY.txt and KEY.json, here of 100 classes.
#
# The teacher is a registered model: train one from scratch with examples/caltech101/teacher.yaml, or import one.
name: photos-half

teacher:
  model: registry:caltech101-teacher@latest      # also hf-hub:ORG/NAME, local-dir:PATH or an architecture

data:
  train:
    shards: /path/to/photos/train-*.tar
    image_key: [jpg]
    distinct_key: json.label         # captions of one class are alike: its images must not be each other's negatives
    augment: {crop_scale: [0.5, 1.0], horizontal_flip: 0.5, color_jitter: 0.3}
  shuffle: 5000

evaluation:
  tasks:
    - name: photos
      kind: zero_shot
      shards: /path/to/photos/val-*.tar
      image_key: [jpg]
      classes: /path/to/photos/classes.txt      # one class a line
      templates: ["a photo of a {}."]
      label_key: json.label

stages:
  - name: half
    inherit: manual
    student:
      image: {width: 24}
      text: {layers: 2, width: 128, heads: 2}
    train: {epochs: 12}

objective: {feature_mimicry: 1}
temperature: {teacher: null, student: learned}
optimizer: {lr: 1.0e-3, warmup_steps: 20}
batch_size: 64
precision: fp32
resources: {workers: 1, cpus_per_worker: 2}
checkpoint: {every_steps: 100, keep: 2}
seed: 0
`},{name:`published`,label:`Published`,description:`The two stages of the paper for ViT-B/32: 400 million pairs, 32 GPUs.`,text:`# Half of a ViT-B/32 by manual inheritance, in two stages: 100 -> 75 -> 50%, as in the published scripts.
# Published: 62.4% (61M) and 59.8% (40M) top-1 on ImageNet, zero-shot.
name: tinyclip-vit-40m-32

teacher: {model: ViT-B-32, pretrained: laion2b_e16}    # of both stages: always the original

data:
  train:
    shards: s3://YOUR-BUCKET/laion400m/{00000..41455}.tar
    samples: 400000000              # the number in the scripts; fewer can be downloaded today
    image_key: [jpg]

stages:
  - name: three-quarters
    select: leading
    student: {preset: TinyCLIP-ViT-61M-32-Text-29M}     # text blocks: the first 9 of 12
    train: {epochs: 6}
  - name: half
    select: leading
    student: {preset: TinyCLIP-ViT-40M-32-Text-19M}     # of the previous student, the first 6 of 9
    train: {epochs: 6}

objective: {affinity: 1}
temperature: {teacher: 50, student: 50}
optimizer: {lr: 1e-4, weight_decay: 0.2, betas: [0.9, 0.98], eps: 1e-6, warmup_steps: 2000, clip_norm: 5}
batch_size: 32768                   # 4 nodes of 8 GPUs, 1024 pairs each
precision: fp16                     # as published; bf16 needs no loss scaling
resources: {workers: 32, device: cuda, cpus_per_worker: 8}
checkpoint: {every_steps: 1000}
seed: 0
`}],K=200;function q(){return A({queryKey:[`names`,`datasets`],queryFn:async()=>(await n(p.GET(`/v1/datasets`,{params:{query:{page_size:K}}}))).items.filter(({latest:e})=>e!=null).map(({name:e})=>e)})}function He(){return A({queryKey:[`names`,`models`],queryFn:async()=>(await n(p.GET(`/v1/models`,{params:{query:{page_size:K}}}))).items.map(({name:e})=>e)})}function Ue(){let e=A({queryKey:[`schema`,`JobSpec`],queryFn:()=>n(p.GET(`/v1/schemas/{document}`,{params:{path:{document:`JobSpec`}}})),staleTime:1/0}),t=q().data,r=He().data;return(0,L.useMemo)(()=>({schema:e.data??null,values:We(t??[],r??[])}),[e.data,t,r])}function We(e,t){return n=>{let r=n.filter(e=>typeof e==`string`).join(`.`);if(r===`data.train.dataset`)return e.map(e=>({text:`${e}@latest`,description:`A registered data set`}));if(r===`teacher.model`||r===`teachers.model`){let e=[[`hf-hub:`,`A model of the Hugging Face Hub: hf-hub:ORG/NAME`],[`local-dir:`,`A folder or URI with a model of open_clip: local-dir:PATH`]];return[...t.map(e=>({text:`registry:${e}@latest`,description:`A registered model`})),...e.map(([e,t])=>({text:e,description:t}))]}return[]}}function Ge(){return A({queryKey:[`examples`],queryFn:async()=>(await n(p.GET(`/v1/examples`))).items,staleTime:6e4})}function Ke({template:e,from:t,dataset:n}){let r=qe(t),i=Je(e,n);return t===void 0?i:r}function qe(e){let t=A({...me(e??``),enabled:e!==void 0}),n=`# The spec of job ${e}, to change and submit again.\n`,r=t.data===void 0?void 0:n+ze(t.data.submitted),i=`job:${e}`;return{id:i,original:r,draft:U(i),error:t.error}}function Je(e,t){let n=q(),r=Ge(),i=G.find(t=>t.name===e),a=r.data?.find(t=>t.name===e),o=i??G[0],s=`template:${a?.name??o.name}${t===void 0?``:` on ${t}`}`,c=r.isPending||n.isPending,l=c?void 0:a?.spec??Be(o.text,r.data??[],n.data??[]);return{id:s,original:l===void 0||t===void 0?l:R(l,t),draft:c?null:U(s),error:null}}var J=se(),Ye=4<<20;function Xe({onText:e,children:t}){let[n,r]=(0,L.useState)(!1);return(0,J.jsx)(m,{onDropCapture:t=>{r(!1);let n=t.dataTransfer.files[0];n!==void 0&&(t.preventDefault(),t.stopPropagation(),Ze(n,e))},onDragOverCapture:e=>{e.dataTransfer.types.includes(`Files`)&&(e.preventDefault(),r(!0))},onDragLeave:()=>r(!1),style:{outline:n?`2px dashed var(--mantine-primary-color-filled)`:`none`,borderRadius:`var(--mantine-radius-md)`},children:t})}async function Ze(e,t){if(e.size>Ye)return w(`Loading the file`,Error(`${e.name} is larger than 4 MB`));try{t(new TextDecoder(`utf-8`,{fatal:!0}).decode(await e.arrayBuffer()))}catch{w(`Loading the file`,Error(`${e.name} is not a text in UTF-8`))}}function Qe(e){return e===``||e===`/`?[]:e.replace(/^\//,``).split(`/`).map(e=>e.replace(/~1/g,`/`).replace(/~0/g,`~`))}function $e(e,t,n){let r=e.contents,i=nt(t,0,t.length);for(let e of n){let n=et(r,String(e));if(n===null)break;r=n.value,i=n.place(t)??i}return i}function et(e,t){if(N(e)){let n=e.items.find(e=>M(e.key)&&String(e.key.value)===t);return n===void 0?null:{value:n.value,place:e=>tt(n,e)}}if(F(e)){let n=e.items[Number(t)];return n===void 0?null:{value:n,place:e=>Y(n,e)}}return null}function tt(e,t){let n=Y(e.value,t),r=M(e.value)||ye(e.value)&&e.value.flow===!0;return n!==null&&r&&n.to>n.from?n:Y(e.key,t)}function Y(e,t){let n=ye(e)?e.range:ge(e)?e.key?.range:null;return n==null?null:nt(t,n[0],n[1])}function nt(e,t,n){let r=e.indexOf(`
`,t);return{from:t,to:r===-1||r>n?n:r}}function rt(e,t,n){let r=n.slice(0,-1).reduce((e,t)=>e===null?null:et(e,String(t))?.value??null,e.contents);if(!N(r))return null;let i=r.items.find(e=>M(e.key)&&String(e.key.value)===String(n.at(-1)));return i===void 0?null:Y(i.key,t)}function it(e,t){let n=[];return X(e,[e],t,[],n),n}function X(e,t,n,r,i){let a=t.flatMap(t=>Se(e,t,n));if(Array.isArray(n))n.forEach((t,n)=>X(e,a.flatMap(e=>e.prefixItems?.[n]??e.items??[]),t,[...r,n],i));else if(typeof n==`object`&&n)for(let[t,o]of Object.entries(n)){let n=a.flatMap(e=>e.properties?.[t]??[]);n.length>0?X(e,n,o,[...r,t],i):a.some(Ce)&&!a.some(at)&&i.push(ot(e,a,[...r,t],t))}}function at(e){return(e.type===`object`||e.type===void 0)&&e.additionalProperties!==!1&&e.enum===void 0&&e.const===void 0}function ot(e,t,n,r){let i=Te(e,t).map(e=>e.name),a=st(r,i);return{path:n,suggestion:a,message:`unknown field ${r}; ${a===null?`known here: ${i.sort().join(`, `)}`:`did you mean ${a}?`}`}}function st(e,t){let n=e=>e.toLowerCase().replace(/[-_\s]/g,``),r=null;for(let i of t){let t=ct(n(e),n(i));t<=Math.max(1,Math.floor(i.length/3))&&(r===null||t<r[0])&&(r=[t,i])}return r?.[1]??null}function ct(e,t){let n=Array.from({length:t.length+1},(e,t)=>t);for(let r=1;r<=e.length;r+=1){let i=[r];for(let a=1;a<=t.length;a+=1)i.push(Math.min(n[a]+1,i[a-1]+1,n[a-1]+Number(e[r-1]!==t[a-1])));n=i}return n[t.length]}function lt(e,{document:t,value:n,mistakes:r},i,a){if(n===void 0)return r.map(e=>({...e,where:``}));let o=i===null?[]:it(i,n),s=new Set(o.map(({path:e})=>e.join(`.`))),c=o.map(({path:n,message:r})=>({...rt(t,e,n)??$e(t,e,n),where:n.join(`.`),message:r,severity:`error`}));for(let{pointer:n,message:r}of a instanceof k?a.problem.errors??[]:[]){let i=Qe(n);s.has(i.join(`.`))||c.push({...$e(t,e,i),where:i.join(`.`),message:D(r),severity:`error`})}return c.sort((e,t)=>e.from-t.from)}function ut(e,t){return e.slice(0,t).split(`
`).length}var Z=50;function dt({mistakes:e,text:t,onJump:n}){return e.length===0?null:(0,J.jsxs)(o,{withBorder:!0,p:`sm`,mt:`sm`,component:`section`,"aria-labelledby":`mistakes-title`,children:[(0,J.jsx)(_,{order:2,size:`h5`,id:`mistakes-title`,mb:4,children:e.length===1?`1 mistake`:`${e.length} mistakes`}),(0,J.jsx)(l,{gap:2,component:`ol`,m:0,p:0,style:{listStyle:`none`},children:e.slice(0,Z).map((e,r)=>(0,J.jsx)(`li`,{children:(0,J.jsx)(g,{onClick:()=>n(e),w:`100%`,py:2,children:(0,J.jsxs)(x,{size:`sm`,className:`user-text`,children:[(0,J.jsxs)(x,{span:!0,fw:600,c:`light-dark(var(--mantine-color-red-9), var(--mantine-color-red-4))`,children:[`Line `,ut(t,e.from)]}),` `,e.where!==``&&(0,J.jsxs)(x,{span:!0,ff:`monospace`,children:[D(e.where,120),`:`,` `]}),D(e.message)]})})},r))}),e.length>Z&&(0,J.jsxs)(x,{size:`sm`,children:[`and `,e.length-Z,` more`]})]})}function ft({places:e,text:t,onReplace:n}){return e.length===0?null:(0,J.jsx)(pe,{color:`blue`,variant:`light`,icon:(0,J.jsx)(Oe,{}),title:`This template needs addresses of yours`,children:(0,J.jsxs)(l,{gap:`xs`,children:[e.map(e=>(0,J.jsx)(pt,{place:e,onFill:r=>n(B(t,e.text,r))},e.text)),(0,J.jsx)(x,{size:`sm`,c:`var(--mantine-color-text)`,children:`The server and its workers read them, not the browser. A registered data set needs no address.`})]})})}function pt({place:e,onFill:t}){let[n,r]=(0,L.useState)(``);return(0,J.jsx)(`form`,{onSubmit:e=>{e.preventDefault(),n.trim()!==``&&t(n)},children:(0,J.jsxs)(f,{gap:`xs`,align:`flex-end`,children:[(0,J.jsx)(ee,{label:e.label,placeholder:e.example,value:n,onChange:e=>r(e.currentTarget.value),w:`min(360px, 64vw)`}),(0,J.jsx)(O,{type:`submit`,variant:`default`,disabled:n.trim()===``,children:`Fill in`})]})})}function mt({image_params:e,text_params_without_embedding:t}){return e+t}function ht(e,t,n){return t==null||n(t)===0?null:n(e)/n(t)}function gt({plan:e}){let{teacher:t,stages:n}=e,r=[{label:`Image parameters`,of:({image_params:e})=>S(e)},{label:`Text parameters`,of:({text_params_without_embedding:e})=>S(e)},{label:`MACs of a pair`,of:({macs:e})=>S(e)}];return(0,J.jsxs)(ue,{columns:[`Model`,t!==null&&`Teacher`,...n.map(({name:e})=>({head:D(e,40),className:`user-text`}))],withRowBorders:!1,verticalSpacing:4,horizontalSpacing:`xs`,fz:`sm`,style:{whiteSpace:`nowrap`},children:[r.map(({label:e,of:r})=>(0,J.jsx)(Q,{label:e,teacher:t===null?null:r(t),stages:n,of:e=>`${e.student.estimated?`~`:``}${r(e.student)}`},e)),t!==null&&(0,J.jsx)(Q,{label:`Share of parameters`,teacher:`100 %`,stages:n,of:e=>(0,J.jsx)(_t,{value:ht(e.student,t,mt)})}),t!==null&&(0,J.jsx)(Q,{label:`Share of MACs`,teacher:`100 %`,stages:n,of:e=>(0,J.jsx)(_t,{value:ht(e.student,t,({macs:e})=>e)})}),(0,J.jsx)(Q,{label:`Inherits`,teacher:t===null?null:``,stages:n,of:vt}),(0,J.jsx)(Q,{label:`Steps`,teacher:t===null?null:``,stages:n,of:e=>C(e.steps)}),(0,J.jsx)(Q,{label:`Learning rate`,teacher:t===null?null:``,stages:n,of:e=>typeof e.lr==`number`?j(e.lr):e.lr===`auto`?`is tested`:`–`}),(0,J.jsx)(Q,{label:`Device time`,teacher:t===null?null:``,stages:n,of:e=>T(Math.max(1,e.device_hours*3600))})]})}function Q({label:e,teacher:t,stages:n,of:r}){return(0,J.jsxs)(i.Tr,{children:[(0,J.jsx)(i.Th,{scope:`row`,fw:400,children:e}),t!==null&&(0,J.jsx)(i.Td,{children:t}),n.map(e=>(0,J.jsx)(i.Td,{children:r(e)},e.index))]})}function _t({value:e}){return e===null?`–`:(0,J.jsxs)(J.Fragment,{children:[(0,J.jsx)(x,{span:!0,size:`sm`,children:fe(e,0)}),(0,J.jsx)(Ee,{value:100*Math.min(1,e),size:4,mt:2,w:72,"aria-hidden":!0})]})}function vt({inherit:e,select:t,search:n}){if(e===`none`)return`nothing`;let r=e===`auto`?n:t;return r==null?e:`${e}, ${r}`}function yt({planned:e,hasMistakes:t,mayWrite:n}){let{plan:i,isOutdated:a,isPlanning:o,isBusy:s}=e;return(0,J.jsxs)(l,{gap:`sm`,component:`section`,"aria-labelledby":`plan-title`,children:[(0,J.jsxs)(f,{justify:`space-between`,mih:28,children:[(0,J.jsx)(_,{order:2,size:`h4`,id:`plan-title`,children:`Plan`}),(0,J.jsxs)(x,{size:`sm`,c:`dimmed`,role:`status`,children:[o&&(0,J.jsx)(r,{size:12,mr:6}),bt(e,t)]})]}),e.error!==null&&!t&&(0,J.jsx)(v,{error:e.error}),i===null?(0,J.jsxs)(x,{c:`dimmed`,size:`sm`,children:[!n&&`Your token has no scope write, which plans and submits jobs: ask an administrator of the project for one.`,n&&(s||o?`The server reads the teacher and the shards.`:`A valid spec shows its students, steps and hours here.`)]}):(0,J.jsx)(m,{style:a?{filter:`grayscale(1) opacity(0.6)`}:void 0,children:(0,J.jsx)(xt,{plan:i})})]})}function bt({isPlanning:e,isBusy:t,isOutdated:n,plan:r},i){return t?`The server is busy; asking again soon`:e?`Planning`:i?r===null?`Mistakes in the spec`:`Of the last valid text`:n?``:`Up to date`}function xt({plan:e}){return(0,J.jsxs)(l,{gap:`sm`,children:[(0,J.jsx)(Ct,{warnings:e.warnings??[]}),(0,J.jsxs)(le,{cols:{base:2,xs:4,md:2,xl:4},spacing:`xs`,children:[(0,J.jsx)($,{label:`Steps`,value:C(e.steps)}),(0,J.jsx)($,{label:e.device===`cuda`?`GPU-hours`:`CPU time`,value:St(e)}),(0,J.jsx)($,{label:`Pairs in an epoch`,value:S(e.samples_per_epoch)}),(0,J.jsx)($,{label:`Batch size`,value:C(e.spec.batch_size)})]}),(e.saved_device_hours??0)>0&&(0,J.jsxs)(x,{size:`sm`,children:[`The reinforcement saves `,j(e.saved_device_hours),` device-hours of the teacher.`]}),(0,J.jsx)(y,{type:`auto`,viewportProps:{tabIndex:0,role:`region`,"aria-label":`Students`},children:(0,J.jsx)(gt,{plan:e})}),(0,J.jsxs)(x,{size:`xs`,c:`dimmed`,children:[`Parameters are without the token embedding.`,e.stages.some(e=>e.student.estimated)&&` ~ is an estimate: the shape is found when the job runs.`]})]})}function St({device_hours:e,device:t}){return t===`cuda`?`${j(e)} h`:`about ${T(Math.max(1,e*3600))}`}function $({label:e,value:t}){return(0,J.jsxs)(`div`,{children:[(0,J.jsx)(x,{size:`xs`,c:`dimmed`,children:e}),(0,J.jsx)(x,{fw:600,children:t})]})}function Ct({warnings:e}){return e.length===0?null:(0,J.jsx)(pe,{color:`orange`,variant:`light`,icon:(0,J.jsx)(te,{}),title:e.length===1?`A warning`:`${e.length} warnings`,children:(0,J.jsx)(l,{gap:4,component:`ul`,m:0,pl:`md`,children:e.map(e=>(0,J.jsx)(x,{component:`li`,size:`sm`,className:`user-text`,c:`var(--mantine-color-text)`,children:D(e)},e))})})}var wt=500,Tt=20,Et=3e4;function Dt(e){let[t]=De(e,wt),n=A({queryKey:[`plan`,t],queryFn:({signal:e})=>Ot(t,e),enabled:t!==null&&t===e,retry:(e,t)=>(ce(t)||kt(t))&&e<Tt,retryDelay:(e,t)=>t instanceof k&&t.retryAfterSeconds!==null?1e3*t.retryAfterSeconds:Math.min(1e3*2**e,8e3),staleTime:Et,gcTime:Et,refetchOnWindowFocus:!1}),r=(0,L.useRef)(null);n.data!==void 0&&(r.current=n.data);let i=e!==null&&t===e,a=(0,L.useRef)(null);return i&&!n.isFetching&&(a.current=n.error),{plan:r.current,isOutdated:!i||n.data===void 0,isPlanning:e!==null&&(!i||n.isFetching),error:a.current,isBusy:At(n.isFetching&&kt(n.failureReason))}}async function Ot(e,t){return await(await u(`/v1/jobs?validate_only=true`,{method:`POST`,body:e,headers:{"Content-Type":`application/json`},signal:t})).json()}function kt(e){return e instanceof k&&e.problem.status===429}function At(e){let[t,n]=(0,L.useState)(!1);return(0,L.useEffect)(()=>{if(!e)return n(!1);let t=setTimeout(()=>n(!0),300);return()=>clearTimeout(t)},[e]),t}var jt=E(`/new-job`);function Mt({text:e,isChanged:t,onReplace:n,onReset:r,onSubmit:i,canSubmit:a,mayWrite:o,isSubmitting:s}){return(0,J.jsxs)(f,{gap:`sm`,align:`flex-end`,justify:`space-between`,children:[(0,J.jsxs)(f,{gap:`sm`,align:`flex-end`,children:[(0,J.jsx)(Nt,{}),(0,J.jsx)(Pt,{text:e,onReplace:n}),(0,J.jsx)(Ft,{text:e,onReplace:n}),(0,J.jsx)(O,{variant:`default`,leftSection:(0,J.jsx)(ke,{size:16,"aria-hidden":!0}),onClick:r,disabled:!t,children:`Start over`})]}),(0,J.jsx)(ne,{label:o?`Ctrl+Enter`:`Your token has no scope write`,children:(0,J.jsx)(O,{leftSection:(0,J.jsx)(Ae,{size:16,"aria-hidden":!0}),onClick:i,disabled:!a||!o,loading:s,children:`Submit job`})})]})}function Nt(){let{template:e,from:t,dataset:n}=jt.useSearch(),r=de(),i=Ge().data??[],a=t===void 0?e??G[0].name:null,o=G.find(({name:e})=>e===a)?.description??i.find(({name:e})=>e===a)?.title,s=[{group:`Templates`,items:G.map(({name:e,label:t})=>({value:e,label:t}))},{group:`Examples on the server`,items:i.map(({name:e})=>({value:e,label:e.replace(/\.yaml$/,``)}))}];return(0,J.jsx)(c,{label:`Template`,description:o,placeholder:`A job's spec`,w:330,maw:`100%`,data:s.filter(({items:e})=>e.length>0),value:a,allowDeselect:!1,onChange:e=>e!==null&&void r({to:`/new-job`,search:{template:e,...n===void 0?{}:{dataset:n}}})})}function Pt({text:e,onReplace:t}){let n=q().data??[];if(n.length===0)return null;let r=It(e,[`data`,`train`,`dataset`])?.split(`@`)[0]??null;return(0,J.jsx)(c,{label:`Data set`,placeholder:`Shards`,w:190,searchable:!0,data:n,value:r!==null&&n.includes(r)?r:null,onChange:n=>n!==null&&t(R(e,`${n}@latest`))})}function Ft({text:e,onReplace:t}){let n=He().data??[];if(n.length===0)return null;let r=It(e,[`teacher`,`model`])??``,i=r.startsWith(`registry:`)?r.slice(9).split(`@`)[0]:null;return(0,J.jsx)(c,{label:`Teacher`,placeholder:`As in the spec`,w:190,searchable:!0,data:n,value:i!==null&&n.includes(i)?i:null,onChange:n=>n!==null&&t(Ie(e,[`teacher`,`model`],`registry:${n}@latest`))})}function It(e,t){let n=we(e).document.getIn(t);return typeof n==`string`?n:null}function Lt(e){let t=de(),n=d(),r=(0,L.useRef)({spec:``,key:``});return re({mutationFn:async e=>{r.current.spec!==e&&(r.current={spec:e,key:s()});let t={"Content-Type":`application/json`,"Idempotency-Key":r.current.key};return await(await u(`/v1/jobs`,{method:`POST`,body:e,headers:t})).json()},onSuccess:i=>{W(e,null),r.current={spec:``,key:``},ae(`Job ${i.name} is submitted`),n.invalidateQueries({queryKey:[`jobs`]}),t({to:`/jobs/$jobId`,params:{jobId:i.id}})},onError:e=>w(`Submission`,e)})}var Rt=(0,L.lazy)(()=>t(()=>import(`./SpecEditor-Ce2dgKAw.js`),__vite__mapDeps([0,1,2,3,4]))),zt=`editor-keys`;function Bt({source:e,original:t,initial:n}){let[r,i]=(0,L.useState)(n),a=(0,L.useRef)(null),s=Ue(),c=(0,L.useMemo)(()=>we(r),[r]),u=(0,L.useMemo)(()=>c.value===void 0?null:JSON.stringify(c.value),[c]),d=oe().data,f=d===void 0||xe(d,`write`),p=Dt(f?u:null),h=(0,L.useMemo)(()=>lt(r,c,s.schema,p.error),[r,c,s.schema,p.error]),g=Lt(e),_=n=>{i(n),W(e,n===t?null:n)},v=e=>a.current===null?_(e):a.current.replace(e),y=()=>{u!==null&&f&&!g.isPending&&g.mutate(u)};return(0,J.jsxs)(l,{gap:`sm`,children:[(0,J.jsx)(Mt,{text:r,isChanged:r!==t,onReplace:v,onReset:()=>v(t),onSubmit:y,canSubmit:u!==null,mayWrite:f,isSubmitting:g.isPending}),(0,J.jsx)(ft,{places:z.filter(e=>r.includes(e.text)),text:r,onReplace:v}),(0,J.jsxs)(I,{gap:`md`,children:[(0,J.jsxs)(I.Col,{span:{base:12,md:7},children:[(0,J.jsx)(Xe,{onText:v,children:(0,J.jsx)(o,{withBorder:!0,h:`clamp(320px, calc(100vh - 330px), 900px)`,style:{overflow:`hidden`},children:(0,J.jsx)(L.Suspense,{fallback:(0,J.jsx)(be,{h:`100%`}),children:(0,J.jsx)(Rt,{ref:a,initialText:r,onChange:_,onSubmit:y,mistakes:h,knowledge:s,describedBy:zt})})})}),(0,J.jsx)(x,{id:zt,size:`xs`,c:`dimmed`,mt:4,children:`Ctrl+Space completes, Ctrl+Enter submits, Ctrl+Z takes back (on a Mac, Cmd for the last two). Tab indents: to leave the editor press Escape, then Tab. Drop a YAML or JSON file to load it.`}),(0,J.jsx)(dt,{mistakes:h,text:r,onJump:e=>a.current?.jump(e)})]}),(0,J.jsx)(I.Col,{span:{base:12,md:5},children:(0,J.jsx)(m,{pos:`sticky`,top:64,children:(0,J.jsx)(yt,{planned:p,mayWrite:f,hasMistakes:h.length>0})})})]})]})}var Vt=E(`/new-job`);function Ht(){let e=Vt.useSearch(),{id:t,original:n,draft:r,error:i}=Ke(e);return(0,J.jsx)(h,{title:`New job`,subtitle:e.from===void 0?`Describe a student: its teacher, its data and its stages.`:`A job's spec, to change and submit again.`,children:n===void 0?i===null?(0,J.jsx)(a,{}):(0,J.jsx)(v,{error:i}):(0,J.jsx)(Bt,{source:t,original:n,initial:r??n},t)})}export{Ht as default};